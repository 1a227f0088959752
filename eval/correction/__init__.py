"""Finding and replacing errors in a text: in one pass without training, and by a corrector that is trained."""
