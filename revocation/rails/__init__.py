"""What an order that hits many needs before it is carried out: a confirmation, or a second person."""
