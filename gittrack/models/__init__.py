"""What a model is: MLflow's format written and read, with signatures, examples, requirements and trust."""
