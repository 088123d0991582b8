"""What drawn requirements are made of: words and phrases that suit most questions."""

KEYWORDS = (
    "advice", "balance", "benefit", "careful", "choice", "clear", "common", "community",
    "compare", "context", "culture", "daily", "detail", "difference", "discover", "effort",
    "energy", "example", "experience", "explain", "explore", "future", "goal", "habit", "history",
    "idea", "improve", "journey", "knowledge", "language", "learn", "limit", "local", "method",
    "modern", "nature", "notice", "patience", "people", "perspective", "plan", "practice",
    "process", "purpose", "quality", "question", "reason", "result", "science", "simple", "skill",
    "source", "strategy", "support", "tradition", "useful", "value", "world",
)  # fmt: skip
"""Words that a response on nearly anything can use."""

COMMON_WORDS = (
    "actually", "also", "always", "amazing", "basically", "best", "certainly", "definitely",
    "essential", "every", "finally", "first", "good", "great", "however", "important", "just",
    "like", "literally", "maybe", "more", "most", "never", "obviously", "often", "overall",
    "perhaps", "please", "really", "should", "simply", "some", "sorry", "therefore", "thing",
    "typically", "very", "well", "will",
)  # fmt: skip
"""Words that responses often use and can do without."""

LETTERS = "abcdefghijklmnopqrstuvwxyz"

FIRST_WORDS = (
    "although", "beyond", "consider", "finally", "history", "imagine", "knowledge", "many",
    "nature", "once", "people", "perhaps", "practice", "science", "summary", "there", "tradition",
    "we", "when", "while",
)  # fmt: skip

END_PHRASES = (
    "Ask me anything else.",
    "I hope this helps.",
    "Is there anything else I can help with?",
    "Let me know how it goes.",
    "Please check this with an expert.",
    "Take your time and decide for yourself.",
    "Thank you for asking.",
    "Thank you for reading.",
    "That is all you need to know.",
    "What would you like to know next?",
)

START_PHRASES = (
    "Good question!",
    "Happy to help.",
    "Here is what I know.",
    "In short:",
    "Let us take a look.",
    "Let me explain.",
    "My answer:",
    "Thank you for your question.",
    "To begin with",
    "Welcome!",
)

QUESTIONS = (
    "How can I learn a new language quickly?",
    "Please explain why the sky is blue.",
    "Suggest a simple dinner for four people.",
    "What should I pack for a week by the sea?",
    "Write a short note to a neighbour about noise at night.",
)

ANSWERS = (
    ("yes", "no"),
    ("Yes", "No", "Unknown"),
    ("true", "false"),
    ("agree", "disagree", "neutral"),
    ("A", "B", "C", "D"),
    ("low", "medium", "high"),
    ("allowed", "not allowed"),
    ("positive", "negative", "mixed"),
)

SECTIONS = ("Chapter", "Day", "Part", "Section", "Step", "SECTION")

POSTSCRIPTS = ("N.B.", "P.P.S", "P.S.", "PS:", "Postscript:")
