"""A public autoencoder: low frequencies pass as they are, the finer ones carry what they leave. Never a patient's."""
