"""What the five papers share: loaders, metrics, and the Accelerate training plumbing."""
