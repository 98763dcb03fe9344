"""The life of an attachment: registered, completed, renumbered, found stale, released."""
