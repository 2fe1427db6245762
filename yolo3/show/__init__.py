"""What people look at: annotated images and videos, and the evaluation report."""
