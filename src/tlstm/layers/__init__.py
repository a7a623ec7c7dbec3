"""The layers as modules with the interface of torch.nn.LSTM: tensorized, stacked and Grid LSTM."""
