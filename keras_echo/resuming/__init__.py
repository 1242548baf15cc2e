"""What a training needs to go on in another process, in one file."""
