"""The cascade of two convolutional LSTM networks and its weights."""
