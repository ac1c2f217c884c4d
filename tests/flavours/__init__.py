"""Models of other libraries than scikit-learn; each module needs its library."""
