"""What a person should know of a network configuration, beyond what the plugins refuse. Pure: documents and facts in,
remarks out."""
