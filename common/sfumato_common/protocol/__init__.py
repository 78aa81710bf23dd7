"""What crosses between coordinator and site: messages, their Flower form, and the intake's service."""
