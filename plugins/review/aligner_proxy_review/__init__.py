"""Reviews of recorded answers: what people say of them, what that proves, and the console in which they are shown."""
