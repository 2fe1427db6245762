"""What people look at: boxes drawn on images, and the evaluation report."""
