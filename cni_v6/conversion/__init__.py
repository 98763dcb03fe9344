"""Networks of other programs as networks of ours, with a report of what differs. Pure: documents in, documents out."""
