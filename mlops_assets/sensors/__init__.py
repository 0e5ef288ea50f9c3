"""What looks by itself: each sensor reads what is true and launches what is due."""
