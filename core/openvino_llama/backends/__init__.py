"""What runs graphs: OpenVINO, and the further WASI-NN backends that plugins contribute."""
