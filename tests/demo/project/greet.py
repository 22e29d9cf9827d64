"""Say hello in a few languages."""

GREETINGS = {"en": "Hello", "fr": "Bonjour", "eo": "Saluton"}


def greet(name: str, language: str = "en") -> str:
    return f"{GREETINGS[language]}, {name}!"
