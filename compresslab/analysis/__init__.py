"""What several technique families ask of a network: layer inputs, sensitivity, allocation under a budget."""
