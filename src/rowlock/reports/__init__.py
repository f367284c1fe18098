"""What the system says about itself: recounts that show that seats equal tickets."""
