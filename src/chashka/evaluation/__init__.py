"""What the models draw, unpicked, and how well: fixed prompts, the contact sheet, nearest training pictures, metrics."""
