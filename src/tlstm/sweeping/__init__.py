"""What a sweep is made of: its file, its plan, its processes and devices, what it shows."""
