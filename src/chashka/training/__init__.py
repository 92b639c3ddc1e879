"""Training of the teacup models: recipes, one loop, four stages."""
