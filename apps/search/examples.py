"""The questions that the start page offers, in ten scripts and with the article that answers each."""

from __future__ import annotations

from f2rag.demo import QUESTIONS, Question

EXAMPLES = (
    *QUESTIONS,
    Question("Можно ли держать человека в рабстве?", "ru", 4, "May a person be held in slavery?"),
    Question("自分の意見を自由に言えますか？", "ja", 19, "May I say my opinion freely?"),
    Question("האם מותר לעצור אדם ללא סיבה?", "he", 9, "May a person be arrested without a reason?"),
    Question("다른 나라로 망명할 수 있나요?", "ko", 14, "Can I seek asylum in another country?"),
    Question("Δικαιούμαι άδεια με αποδοχές;", "el", 24, "Am I entitled to paid leave?"),
    Question("ฉันมีสิทธิเลือกตั้งหรือไม่", "th", 21, "Do I have the right to vote?"),
)
