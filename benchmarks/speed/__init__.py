"""What the design saves, measured as ratios against plain loops."""
