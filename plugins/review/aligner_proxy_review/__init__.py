"""Plugin for reviews of recorded answers: what people say about them, what that proves, and the console."""
