"""Pictures of a node and of its address spaces, as SVG and HTML, from facts. Pure."""
