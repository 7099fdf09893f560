"""What a run says of new photographs and videos."""
