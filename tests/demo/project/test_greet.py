import unittest

from greet import greet


class Greets(unittest.TestCase):
    def test_in_every_language(self):
        self.assertEqual(greet("Ada"), "Hello, Ada!")
        self.assertEqual(greet("Ada", "eo"), "Saluton, Ada!")
