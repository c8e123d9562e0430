"""The cascade of two convolutional LSTM networks, its weights and its training."""
