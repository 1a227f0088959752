"""Finding and replacing what does not belong into a text: in one pass without training, and by a corrector that is trained."""
