"""Words: vectors, synonyms, stop words, and a sentence encoder."""
