"""What a header says: cards, tags, descriptors, world coordinates, standard stars and zero points."""
