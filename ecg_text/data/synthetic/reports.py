"""The texts of the SYNTHETIC reports: several phrases for each statement, in three languages."""

import numpy as np

# fmt: off
# What a report says for a code in German, English and Swedish; "|" separates the alternatives.
PHRASES = {
    "NORM": ("normales ekg|unauffälliges ekg|ekg im normbereich|kein krankhafter befund|"
             "altersentsprechendes ekg",
             "normal ecg|within normal limits|no definite pathology|unremarkable tracing",
             "normalt ekg|ekg utan anmärkning"),
    "IMI": ("inferiorer infarkt wahrscheinlich alt|q-zacken in ii iii avf vereinbar mit altem "
            "hinterwandinfarkt|zustand nach hinterwandinfarkt|inferiorer myokardschaden",
            "q waves in ii, iii, avf suggesting old inferior infarct|inferior myocardial infarction|"
            "old inferior infarct",
            "inferior infarkt sannolikt gammal|gammal diafragmal hjärtinfarkt"),
    "ASMI": ("anteroseptaler infarkt wahrscheinlich alt|r-verlust v1 bis v3 durch anteroseptalen infarkt|"
             "anteroseptaler myokardschaden",
             "poor r progression v1-3 suggesting anteroseptal infarct|old anteroseptal myocardial infarction",
             "anteroseptal infarkt sannolikt gammal|anteroseptal hjärtmuskelskada"),
    "AMI": ("vorderwandinfarkt wahrscheinlich alt|ausgedehnter vorderwandinfarkt|"
            "q-zacken v1 bis v4 bei vorderwandinfarkt",
            "old anterior myocardial infarction|q waves in v1-4 suggesting anterior infarct",
            "framväggsinfarkt sannolikt gammal|anterior hjärtinfarkt"),
    "ISC_": ("t negativ v4 bis v6 verdacht auf ischämie|erregungsrückbildungsstörung im sinne einer ischämie|"
             "myokardischämie möglich",
             "t waves are inverted in v4-6. myocardial ischaemia is possible|"
             "lateral t inversion suggests ischaemia",
             "negativ t i v4-v6 talande för ischemi|misstänkt myokardischemi"),
    "NDT": ("unspezifisches abnormales t|flache t-wellen unspezifisch|t flach in i avl v4 bis v6",
            "non-specific t wave flattening|t waves are low or flat in the lateral leads",
            "ospecifik t-förändring|flacka t-vågor"),
    "CLBBB": ("linksschenkelblock|kompletter linksschenkelblock|vollständiger block des linken schenkels",
              "left bundle branch block|complete left bundle branch block|"
              "wide qrs of left bundle branch block type",
              "vänstersidigt skänkelblock|komplett vänstergrenblock"),
    "CRBBB": ("rechtsschenkelblock|kompletter rechtsschenkelblock|vollständiger block des rechten schenkels",
              "right bundle branch block|complete right bundle branch block|"
              "rsr' in v1, right bundle branch block",
              "högersidigt skänkelblock|komplett högergrenblock"),
    "1AVB": ("av-block i. grades|a-v block i|pq-zeit verlängert|verzögerte av-überleitung",
             "first degree av block|prolonged pr interval|delayed av conduction",
             "av-block i|förlängd pq-tid"),
    "LVH": ("linkshypertrophie|linksventrikuläre hypertrophie mit schädigung|"
            "sichere links-ventrikel-hypertrophie|hohe amplituden linkshypertrophie wahrscheinlich",
            "left ventricular hypertrophy|voltages are high in chest leads suggesting "
            "left ventricular hypertrophy",
            "vänsterkammarhypertrofi|hög amplitud talande för vänsterkammarhypertrofi"),
    "RVH": ("rechtshypertrophie|rechtsventrikuläre hypertrophie|hohes r in v1 bei rechtsherzbelastung",
            "right ventricular hypertrophy|tall r in v1 suggests right ventricular hypertrophy",
            "högerkammarhypertrofi|högerbelastning"),
    "STD_": ("st-senkung v4 bis v6|deszendierende st-strecken|st gesenkt lateral",
             "st segments are depressed in v4-6|lateral st depression",
             "st-sänkning v4-v6|sänkta st-sträckor"),
    "PVC": ("ventrikuläre extrasystole(n)|einzelne ventrikuläre extrasystolen|kammerextrasystolie",
            "premature ventricular contraction(s)|ventricular ectopic beats",
            "ventrikulär(a) extrasystole(r)|kammarextraslag"),
    "PAC": ("supraventrikuläre extrasystole(n)|vorzeitige vorhofaktionen|vorhofextrasystolie",
            "premature atrial contraction(s)|atrial ectopic beats",
            "supraventrikulär(a) extrasystole(r)|förmaksextraslag"),
    "SR": ("sinusrhythmus|regelmäßiger sinusrhythmus|normofrequenter sinusrhythmus",
           "sinus rhythm|regular sinus rhythm|normal sinus rhythm rate", "sinusrytm|regelbunden sinusrytm"),
    "SBRAD": ("sinusbradykardie|langsamer sinusrhythmus|bradykarder sinusrhythmus",
              "sinus bradycardia|slow sinus rhythm",
              "sinusbradykardi|långsam sinusrytm"),
    "STACH": ("sinustachykardie|schneller sinusrhythmus|tachykarder sinusrhythmus",
              "sinus tachycardia|fast sinus rhythm",
              "sinustakykardi|snabb sinusrytm"),
    "AFIB": ("vorhofflimmern|absolute arrhythmie bei vorhofflimmern|"
             "vorhofflimmern mit unregelmäßiger überleitung",
             "atrial fibrillation|irregular rhythm without p waves, atrial fibrillation",
             "förmaksflimmer|oregelbunden rytm, förmaksflimmer"),
    "MID": ("lagetyp normal|indifferenztyp|steiltyp", "normal axis", "normal el-axel"),
    "LAD": ("linkstyp|überdrehter linkstyp|linkslage der herzachse", "left axis deviation|leftward axis",
            "vänster el-axel"),
    "RAD": ("rechtstyp|rechtslage der herzachse", "right axis deviation|rightward axis",
            "höger el-axel"),
    "end": ("4.46 unbestätigter bericht|unbestätigter bericht|keine voraufnahme zum vergleich|"
            "maschinelle befundung",
            "unconfirmed report|no previous tracing for comparison", "obekräftad rapport"),
}
# fmt: on


def write_report(codes: list[str], axis: str, rng: np.random.Generator) -> str:
    """A report that states every code in words: in German, English or Swedish in 70, 28 and 2 % of cases."""
    language = int(rng.choice(3, p=(0.70, 0.28, 0.02)))
    told = [codes[-1]]  # the rhythm comes first, as in the real reports
    told += [axis] if rng.random() < 0.5 else []
    told += codes[:-1]
    told += ["end"] if rng.random() < 0.3 else []
    said = [str(rng.choice(PHRASES[code][language].split("|"))) for code in told]
    text = ". ".join(said) + "." if language == 1 else " ".join(said)
    return text.translate(str.maketrans("äöüå", "ÄÖÜÅ"))  # the lower-casing of PTB-XL missed these letters
