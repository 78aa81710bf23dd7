"""The contract of the latent spaces that methods walk in; each space stands with the generator whose release it is."""
