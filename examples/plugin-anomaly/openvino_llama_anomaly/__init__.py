"""Anomalies in time series, as a plugin of OpenVINO-Llama: columns of numbers in, the points that do not fit out."""
