"""Who holds which address: records, the store's protocol, and stores in memory and on disk."""
