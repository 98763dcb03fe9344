"""Real runtimes on the plugins: cnitool, containerd, podman, and the reference plugins as peers."""
