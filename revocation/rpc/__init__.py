"""gRPC at the edge of the service. Nothing outside of this package knows protobuf or statuses."""
