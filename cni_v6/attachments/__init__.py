"""The life of an attachment: register, complete, renumber, find stale ones, release."""
