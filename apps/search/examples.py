"""Questions to the Declaration, each in sixteen languages and ten scripts, with the article that answers it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from f2rag.demo import Question


@dataclasses.dataclass(frozen=True, slots=True)
class Known:
    """A question whose answer is known.

    Attributes:
        article: That answers it, in any language.
        wordings: The question by language; they are translations of each other.
    """

    article: int
    wordings: Mapping[str, str]

    @property
    def english(self) -> str:
        """It in English."""
        return self.wordings["en"]


KNOWN = (
    Known(
        15,
        {
            "en": "Can a government take away my nationality?",
            "es": "¿Puede un gobierno quitarme la nacionalidad?",
            "fr": "Un gouvernement peut-il me retirer ma nationalité ?",
            "de": "Kann mir eine Regierung meine Staatsangehörigkeit entziehen?",
            "pt": "Um governo pode tirar a minha nacionalidade?",
            "ru": "Может ли правительство лишить меня гражданства?",
            "zh": "政府可以剥夺我的国籍吗？",
            "ja": "政府は私の国籍を奪うことができますか？",
            "ko": "정부가 내 국적을 박탈할 수 있나요?",
            "ar": "هل يمكن للحكومة أن تجردني من جنسيتي؟",
            "he": "האם ממשלה יכולה לשלול ממני את אזרחותי?",
            "hi": "क्या सरकार मेरी नागरिकता छीन सकती है?",
            "el": "Μπορεί μια κυβέρνηση να μου αφαιρέσει την ιθαγένεια;",
            "th": "รัฐบาลสามารถเพิกถอนสัญชาติของฉันได้หรือไม่",
            "tr": "Bir hükümet beni vatandaşlıktan çıkarabilir mi?",
            "sw": "Je, serikali inaweza kuninyang'anya uraia wangu?",
        },
    ),
    Known(
        26,
        {
            "en": "Must education be free of charge?",
            "es": "¿La educación debe ser gratuita?",
            "fr": "L'éducation doit-elle être gratuite ?",
            "de": "Muss Bildung kostenlos sein?",
            "pt": "A educação deve ser gratuita?",
            "ru": "Должно ли образование быть бесплатным?",
            "zh": "教育必须免费吗？",
            "ja": "教育は無料でなければなりませんか？",
            "ko": "교육은 무상이어야 하나요?",
            "ar": "هل يجب أن يكون التعليم مجانيًا؟",
            "he": "האם החינוך חייב להיות חינם?",
            "hi": "क्या शिक्षा निःशुल्क होनी चाहिए?",
            "el": "Πρέπει η εκπαίδευση να παρέχεται δωρεάν;",
            "th": "การศึกษาต้องจัดให้ฟรีหรือไม่",
            "tr": "Eğitim ücretsiz olmak zorunda mı?",
            "sw": "Je, elimu lazima itolewe bure?",
        },
    ),
    Known(
        24,
        {
            "en": "Do workers have a right to rest and paid holidays?",
            "es": "¿Tienen los trabajadores derecho al descanso y a vacaciones pagadas?",
            "fr": "Les travailleurs ont-ils droit au repos et à des congés payés ?",
            "de": "Haben Arbeitnehmer ein Recht auf Erholung und bezahlten Urlaub?",
            "pt": "Os trabalhadores têm direito ao descanso e a férias pagas?",
            "ru": "Имеют ли работники право на отдых и оплачиваемый отпуск?",
            "zh": "工人有休息和带薪休假的权利吗？",
            "ja": "労働者には休息と有給休暇の権利がありますか？",
            "ko": "노동자에게 휴식과 유급 휴가의 권리가 있나요?",
            "ar": "هل للعمال الحق في الراحة وفي إجازات مدفوعة الأجر؟",
            "he": "האם לעובדים יש זכות למנוחה ולחופשה בתשלום?",
            "hi": "क्या श्रमिकों को आराम और सवेतन छुट्टियों का अधिकार है?",
            "el": "Έχουν οι εργαζόμενοι δικαίωμα σε ανάπαυση και άδεια με αποδοχές;",
            "th": "คนทำงานมีสิทธิได้พักผ่อนและมีวันหยุดโดยได้รับค่าจ้างหรือไม่",
            "tr": "Çalışanların dinlenme ve ücretli izin hakkı var mı?",
            "sw": "Je, wafanyakazi wana haki ya kupumzika na kupata likizo yenye malipo?",
        },
    ),
    Known(
        16,
        {
            "en": "Does a marriage need the consent of both?",
            "es": "¿Es necesario el consentimiento de ambos para casarse?",
            "fr": "Faut-il le consentement des deux époux pour se marier ?",
            "de": "Braucht eine Ehe die Zustimmung beider?",
            "pt": "Um casamento precisa do consentimento de ambos?",
            "ru": "Нужно ли для брака согласие обоих?",
            "zh": "结婚需要双方同意吗？",
            "ja": "結婚には両者の同意が必要ですか？",
            "ko": "결혼하려면 두 사람 모두의 동의가 필요한가요?",
            "ar": "هل يشترط رضا الزوجين في الزواج؟",
            "he": "האם נישואין מחייבים את הסכמת שני בני הזוג?",
            "hi": "क्या विवाह के लिए दोनों की सहमति ज़रूरी है?",
            "el": "Χρειάζεται ο γάμος τη συναίνεση και των δύο;",
            "th": "การสมรสต้องได้รับความยินยอมจากทั้งสองฝ่ายหรือไม่",
            "tr": "Evlilik için her iki tarafın rızası gerekli mi?",
            "sw": "Je, ndoa inahitaji ridhaa ya wote wawili?",
        },
    ),
    Known(
        18,
        {
            "en": "Can I change my religion?",
            "es": "¿Puedo cambiar de religión?",
            "fr": "Puis-je changer de religion ?",
            "de": "Darf ich meine Religion wechseln?",
            "pt": "Posso mudar de religião?",
            "ru": "Могу ли я сменить религию?",
            "zh": "我可以改变自己的宗教信仰吗？",
            "ja": "自分の宗教を変えることはできますか？",
            "ko": "종교를 바꿀 수 있나요?",
            "ar": "هل يمكنني تغيير ديني؟",
            "he": "האם מותר לי להחליף את דתי?",
            "hi": "क्या मैं अपना धर्म बदल सकता हूँ?",
            "el": "Μπορώ να αλλάξω θρήσκευμα;",
            "th": "ฉันเปลี่ยนศาสนาได้หรือไม่",
            "tr": "Dinimi değiştirebilir miyim?",
            "sw": "Je, ninaweza kubadili dini yangu?",
        },
    ),
    Known(
        4,
        {
            "en": "May a person be held in slavery?",
            "es": "¿Se puede someter a una persona a esclavitud?",
            "fr": "Peut-on tenir une personne en esclavage ?",
            "de": "Darf ein Mensch in Sklaverei gehalten werden?",
            "pt": "Uma pessoa pode ser mantida em escravidão?",
            "ru": "Можно ли держать человека в рабстве?",
            "zh": "可以把人当作奴隶吗？",
            "ja": "人を奴隷にすることは許されますか？",
            "ko": "사람을 노예로 삼아도 되나요?",
            "ar": "هل يجوز استعباد إنسان؟",
            "he": "האם מותר להחזיק אדם בעבדות?",
            "hi": "क्या किसी व्यक्ति को गुलामी में रखा जा सकता है?",
            "el": "Επιτρέπεται να κρατείται κάποιος σε δουλεία;",
            "th": "บุคคลจะถูกกักไว้เป็นทาสได้หรือไม่",
            "tr": "Bir insan köle olarak tutulabilir mi?",
            "sw": "Je, inaruhusiwa kumweka mtu utumwani?",
        },
    ),
    Known(
        19,
        {
            "en": "May I say my opinion freely?",
            "es": "¿Puedo expresar libremente mi opinión?",
            "fr": "Puis-je exprimer librement mon opinion ?",
            "de": "Darf ich meine Meinung frei äußern?",
            "pt": "Posso expressar livremente a minha opinião?",
            "ru": "Могу ли я свободно выражать своё мнение?",
            "zh": "我可以自由发表意见吗？",
            "ja": "自分の意見を自由に言えますか？",
            "ko": "내 의견을 자유롭게 말할 수 있나요?",
            "ar": "هل يمكنني التعبير عن رأيي بحرية؟",
            "he": "האם מותר לי להביע את דעתי בחופשיות?",
            "hi": "क्या मैं अपनी राय खुलकर व्यक्त कर सकता हूँ?",
            "el": "Μπορώ να εκφράζω ελεύθερα τη γνώμη μου;",
            "th": "ฉันแสดงความคิดเห็นได้อย่างเสรีหรือไม่",
            "tr": "Fikrimi özgürce ifade edebilir miyim?",
            "sw": "Je, ninaweza kutoa maoni yangu kwa uhuru?",
        },
    ),
    Known(
        9,
        {
            "en": "May a person be arrested without a reason?",
            "es": "¿Se puede detener a una persona sin motivo?",
            "fr": "Peut-on arrêter une personne sans raison ?",
            "de": "Darf ein Mensch ohne Grund festgenommen werden?",
            "pt": "Uma pessoa pode ser presa sem motivo?",
            "ru": "Можно ли арестовать человека без причины?",
            "zh": "可以无故逮捕一个人吗？",
            "ja": "理由もなく人を逮捕してもよいのですか？",
            "ko": "이유 없이 사람을 체포해도 되나요?",
            "ar": "هل يجوز القبض على شخص بلا سبب؟",
            "he": "האם מותר לעצור אדם ללא סיבה?",
            "hi": "क्या किसी व्यक्ति को बिना कारण गिरफ़्तार किया जा सकता है?",
            "el": "Επιτρέπεται να συλληφθεί κάποιος χωρίς λόγο;",
            "th": "จับกุมบุคคลโดยไม่มีเหตุผลได้หรือไม่",
            "tr": "Bir kişi sebepsiz yere tutuklanabilir mi?",
            "sw": "Je, mtu anaweza kukamatwa bila sababu?",
        },
    ),
    Known(
        14,
        {
            "en": "Can I seek asylum in another country?",
            "es": "¿Puedo pedir asilo en otro país?",
            "fr": "Puis-je demander l'asile dans un autre pays ?",
            "de": "Kann ich in einem anderen Land Asyl suchen?",
            "pt": "Posso pedir asilo em outro país?",
            "ru": "Могу ли я искать убежища в другой стране?",
            "zh": "我可以到别的国家寻求庇护吗？",
            "ja": "他の国に庇護を求めることはできますか？",
            "ko": "다른 나라로 망명할 수 있나요?",
            "ar": "هل يمكنني طلب اللجوء في بلد آخر؟",
            "he": "האם אפשר לבקש מקלט במדינה אחרת?",
            "hi": "क्या मैं किसी दूसरे देश में शरण माँग सकता हूँ?",
            "el": "Μπορώ να ζητήσω άσυλο σε άλλη χώρα;",
            "th": "ฉันขอลี้ภัยในประเทศอื่นได้หรือไม่",
            "tr": "Başka bir ülkeye sığınabilir miyim?",
            "sw": "Je, ninaweza kuomba hifadhi katika nchi nyingine?",
        },
    ),
    Known(
        21,
        {
            "en": "Do I have the right to vote?",
            "es": "¿Tengo derecho a votar?",
            "fr": "Ai-je le droit de vote ?",
            "de": "Habe ich das Recht zu wählen?",
            "pt": "Tenho direito de votar?",
            "ru": "Есть ли у меня право голоса?",
            "zh": "我有选举权吗？",
            "ja": "私には選挙で投票する権利がありますか？",
            "ko": "나에게 투표할 권리가 있나요?",
            "ar": "هل لي حق التصويت؟",
            "he": "האם יש לי זכות להצביע?",
            "hi": "क्या मुझे वोट देने का अधिकार है?",
            "el": "Έχω δικαίωμα ψήφου;",
            "th": "ฉันมีสิทธิเลือกตั้งหรือไม่",
            "tr": "Oy kullanma hakkım var mı?",
            "sw": "Je, nina haki ya kupiga kura?",
        },
    ),
)

_OFFERED = (
    (15, "en"),
    (26, "es"),
    (24, "zh"),
    (16, "ar"),
    (18, "sw"),
    (24, "ru"),
    (19, "ja"),
    (26, "he"),
    (19, "ko"),
    (18, "th"),
    (15, "hi"),
    (21, "el"),
    (4, "de"),
    (14, "pt"),
)
"""Article and language of what the start page offers: pairs for which the stand-in, too, finds the article first."""

_BY_ARTICLE = {known.article: known for known in KNOWN}


def _question(known: Known, language: str) -> Question:
    english = "" if language == "en" else known.english
    return Question(known.wordings[language], language, known.article, english)


EXAMPLES = tuple(_question(_BY_ARTICLE[article], language) for article, language in _OFFERED)
"""What the start page offers: in fourteen languages and ten scripts."""

_WORDINGS = {text: (known, language) for known in KNOWN for language, text in known.wordings.items()}


def known_question(text: str) -> tuple[Known, str] | None:
    """The question that a text is a wording of, and its language; ``None`` where it is not known."""
    return _WORDINGS.get(text.strip())
