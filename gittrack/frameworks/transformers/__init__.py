"""Models of Hugging Face's transformers: what may be in their folders, how they are read, how they predict."""
