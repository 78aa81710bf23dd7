"""A GAN with a W space; only the discriminator sees real images."""
