"""Names that registries of several languages give to the canonical columns and their files.

Regular expressions over a name as `folded` gives it: lower case, letters and digits only, without
accents. English, German, French, Spanish, Dutch, Danish, Norwegian and Swedish.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

_YEARS = r"(j|jahren?|years?|yrs?|ans?|anos|jaar|ar)?"
_DAY = r"(date|datum|dt|dato|fecha|am|on)?"
_OF = r"(de|du|del|dela|der|des|van|d)?"
#: Words before and after a disease that say that it came earlier.
_PRE = (
    r"((hx|v|vorbek(annte[rs]?)?|prior|prev(ious)?|old|known|past|history|hist|sp|stp(ost)?|zn"
    r"|status(post|nach|efter)|zust(and)?(n|nach)|stn(ach)?|fruher(e[rs]?)?|bek(annte[rs]?)?|anam"
    r"|anamnes[ei]|antecedente?s?|antec|atcd|ant|voorgeschiedenis|vg|eerdere?|doorgemaakte?"
    r"|tidl(igere)?|tidigare|kendt|kjent|kand|genomgangen|gjennomgatt|gennemgaet)(of)?" + _OF + ")?"
)
_LATER = (
    r"(anamnese|anamnestisch|vorbekannt|bekannt|(inder|inde|in|i)?(anamnese|anamnesen|anamnes"
    r"|voorgeschiedenis)|previ[oa]|anterieure?|ancien(ne)?|antecedente?s?|tidligere|tidigare|history"
    r"|hx|prior|jn|janein|yn)?"
)
#: Names by canonical column.
NAMES: Mapping[str, str] = {
    "patient_id": r"(patient(en)?|pat|person(en)?|phn|mrn|hcn|nhsnumber|chinumber|subject|paciente"
    r"|versicherten|pseudonym)(id|idnr|nr|no|number|nummer|num|key|kode|code|pseudonym)?|id|studyid"
    r"|fallnr|(ipp|nip|nhc|bsn|cpr(nr)?|personnummer|fodselsnummer|lopnr|lopenr|pnr|dossiernr)"
    r"|(identifiant|numero|nro|num|no|n|id)" + _OF + r"(patient|paciente)",
    "study_date": r"(study|scan|exam|test|spect(ct)?|ct|mpi|index|untersuchungs?|aufnahmect|examen"
    r"|estudio|onderzoeks?|undersogelses?|undersokelses?|undersoknings?)s?" + _DAY + "|"
    r"(date|fecha|datum|dato)" + _OF + r"(examen|estudio|prueba|untersuchung|study|scan|exam)|"
    r"datum|date|fecha|dato",
    "accession_number": r"(accession|acc|order|auftrag|anforderung|befund)s?"
    r"(number|no|nr|nummer|num|id)?|(numero|no)" + _OF + r"(examen|demande|peticion)"
    r"|(verrichtings|henvisnings?|remiss)(nr|nummer|id)",
    "birth_date": r"(birth|geburts?|geboren|naissance|nacimiento|geboorte|fodsels?|fodelse)s?"
    + _DAY
    + r"|(date|fecha)"
    + _OF
    + r"(birth|naissance|nacimiento)|dob|dateofbirth|gebdat|gebdatum|nele|ddn",
    "age_years": r"(age|alter|edad|leeftijd|alder)(in)?(atscan|atstudy|beiuntersuchung|examen)?"
    + _YEARS,
    "sex": r"sex|gender|geschl(echt)?|sexe|sexo|geslacht|kjonn|kon|mw",
    "bmi_kg_m2": r"bmi(kgm2)?|bodymassindex|imc(kgm2)?|korpermassindex|qi",
    "weight_kg": r"(weight|wt|(korper)?gewicht|poids|peso|vekt|vagt|vikt)(kg|lbs?|g)?",
    "height_cm": r"(height|ht|(korper)?grosse|taille|talla|altura|lengte|hoyde|hojde|langd|langde)"
    r"(cm|in|m)?",
    "hypertension": _PRE + r"(hypertension|htn|(arterielle)?hypertonie|arterialhypertension|hta"
    r"|(arterielle)?hypertension(arterielle|arterial)?|(bluthoch|hoher?blut)druck|hypertensie"
    r"|hypertensjon|hypertoni|rrhoch)",
    "diabetes": _PRE + r"(diabetes?(mellitus|sucre)?|diabete|dm|zuckerkrankheit|suikerziekte)",
    "dyslipidemia": _PRE + r"((dys|hyper)lipida?(e?mia|emie|mie|demie|dmi|demi)|lipids|dlp"
    r"|fettstoffwechsel(storung)?|hypercholesterin(a|e)mie|hypercholesterol(emia|emie|a?mi)"
    r"|dislipemia|hyperkolesterolemi)",
    "family_history": r"(hx|v)?(familyhistory|fhx|famhx|familyhx).*|fam(ilien|ilie|il)?anamnese.*"
    r"|antecedents?famili(aux|ales|ares)|heredite(coronaire)?|familiehistori[ek]|hereditet",
    "smoking": r"(hx|v)?(smok(ing|er)|currentsmok(ing|er)|(aktiv(er)?)?raucher(in)?|rauchen"
    r"|nikotin(abusus)?|tabac|tabagisme|fumeur|fumador|tabaquismo|roker|roken|ryger|royker|rokare)",
    "prior_mi": _PRE + r"(n?stemi|iam|ami|mi|(myokard(ie)?|herz|hjerte|hjart|h)?infarkt"
    r"|(acute)?(myocard(ial)?|hart)?infarct(ion)?|heartattack|idm|infarctus((du|de)?myocarde)?"
    r"|infarto((agudo)?(de|del)?miocardio)?)" + _LATER,
    "prior_pci": _PRE + r"((perkutane?|percutaneous)?(koronar|coronary)?(intervention|stents?)|pci"
    r"|ptca|icp|actp|atc|(koronar|ballon)?(dilatation|dilatatie|dotter(behandeling)?)|stenting"
    r"|(koronar|coronary|ballon)?angioplast(y|ie|ia|ik)(coronaire|coronaria)?|stentimplantation"
    r"|ballonudvidelse|ballongvidgning)+" + _LATER,
    "prior_cabg": _PRE + r"(cabg|acvb|acb|avb|pac|((aorto)?(koronare?|coronary|hjerte|kranskarls))?"
    r"(bypass(e|es|operatie|operation|kirurgi|chirurgie)?)|(cirugia)?(de)?bypass(coronario)?"
    r"|pontages?((aorto)?coronariens?)?|derivacion(aorto)?coronaria|omleiding(en)?"
    r"|kranskarlsoperation|koronarchirurgie)+(surgery|op)?" + _LATER,
    "stress_tpd_pct": r"(ac)?(stress|belastungs?)tpd(ac|pct|proz(ent)?)*|tpd(stress|belastung).*"
    r"|tpdeffort|tpdesfuerzo",
    "rest_tpd_pct": r"(ac)?(rest|ruhe)tpd(ac|pct|proz(ent)?)*|tpd(rest|ruhe|repos|reposo|rust).*",
    "stress_lvef_pct": r"(stress|belastungs?)?(lvef|ef|fevg|fevi|lvejf)"
    r"(stress|belastung|pct|proz)*",
    "admit_date": r"(admi(t|ssion)|aufnahme|start|visit|encounter|begin|beginn|von|entree|ingreso"
    r"|opname|indlaggelses?|innleggelses?|inskrivnings?|indl?)s?" + _DAY + "|"
    r"(date|fecha)" + _OF + r"(entree|ingreso|admission|admision)",
    "discharge_date": r"(dis(charge)?|entlassungs?|entl|stop|end|ende|bis|sortie|alta|ontslag"
    r"|udskrivnings?|utskrivnings?|utskrivelses?)s?" + _DAY + "|"
    r"(date|fecha)" + _OF + r"(sortie|alta|discharge)",
    "record_type": r"(record|encounter|visit|care|level|institution|fall|behandlungs?|aufnahme"
    r"|versorgungs?)(type|class|level|setting|art|typ|form)|type|class|art|setting|level"
    r"|aufenthaltsart"
    r"|type?" + _OF + r"(sejour|prise(en)?charge|ingreso|opname)|tipo(de)?(ingreso|episodio)"
    r"|kontakttype?|omsorgsniva|vardform|opnametype",
    "main_diagnosis": r"haupt(diag(nose|n)?|dx)(icd(10)?(gm)?|code|kode)?|hd(icd(10)?|kode|code)"
    r"|(principal|primary|main)(diag(nosis)?|dx|icd)(code)?|diag(nostic(o)?)?principal|dp"
    r"|hoofddiagnose(code)?|hoveddiagnose|hovedtilstand|aktionsdiagnose|huvuddiagnos|hdia",
    "other_diagnosis": r"neben(diag(nosen?|n)?|dx)(icd(10)?(gm)?|code|kode)?(\d+)|nd(icd)?(\d+)"
    r"|(secondary|other)(diag(nosis)?|dx)(code)?(\d+)|diag(nostic)?(associe|secundario)(\d+)"
    r"|das(\d+)|nevendiagnose(\d+)|bidiagnose(\d+)|bitilstand(\d+)|bidiagnos(\d+)|bdia(\d+)",
    "diagnosis_code": r"(dx|diag(nose|nosis|nosi|nostic|nostico|nos)?|icd(10)?(gm|ca|cm)?|cim(10)?"
    r"|cie(10)?)(icd(10)?)?(code|kode|schlussel|codigo)?(\d+)?|(code|codigo)(icd|cim|cie)(10)?",
    "diagnosis_type": r"(dx|diag(nose|nosis|nosi)?|icd)(type|role|prefix|typ|art|rang|rolle|soort)"
    r"(\d+)?|typ|type(diag|dx|diagnostic)(\d+)?|tipo(diagnostico|dx)(\d+)?|diagnosart",
    "diagnosis_system": r"(dx|diag(nosis)?|icd)(version|ver|system|flag)",
    "procedure_code": r"(px|proc(edure)?|prozeduren?|interv(ention)?|ops|opcs|cci|ccam|cpt|ncsp|kva"
    r"|operation|eingriff|verrichting|procedimiento|acte|ops?kode|atgard|operasjon)"
    r"(code|kode|schlussel|codigo)?(\d+)?|code(acte|procedure)(\d+)?",
    "procedure_date": r"(px|proc(edure)?|prozedur(en)?|interv(ention)?|ops?|operations?|eingriffs?"
    r"|verrichtings?|acte|atgards?)(date|datum|dt|dato|tag|am)(\d+)?"
    r"|(date|fecha)" + _OF + r"(acte|procedure|procedimiento|intervention)(\d+)?",
    "death_date": r"(death|dod|deceased|died|tod(es)?|sterbe|verstorben|gestorben|deces|defuncion"
    r"|overlijdens?|overleden|dods)s?" + _DAY + "|"
    r"(date|fecha)" + _OF + r"(death|deces|defuncion|muerte)|dateofdeath",
    "coverage_end": r"(coverage|covered|observed|followup|lastcontact|lastseen|beobachtet|nachbeob"
    r"(achtet|achtung)?|versichert|letzterkontakt|letztekontrolle|dernierenouvelles?|ultimocontacto"
    r"|laatstecontact|sidstekontakt|sistekontakt)(end|ende|to|until|bis|date|am|datum)?|bis"
    r"|(datefin|findate|finde?)(suivi|seguimiento)|datedernieresnouvelles",
    "emigration_date": r"(emigration|moved|left|lefton|wegzugs?|weggezogen|verzogen|outmigration"
    r"|demenagement|emigracion|verhuisd|udvandrings?|utvandrings?)(date|datum|on|dt|am|dato)?",
    "reader": r"reader|observer|read(er)?by|befunder(in)?|auswerter(in)?|lecteur|lector"
    r"|beoordelaar",
    "method": r"method|readingtype|methode|auswertung|metodo|metode",
    "agatston": r"(total|gesamt)?(agatston|cacs?|calciumscore|kalk(score)?|cac)(score|total|wert)?"
    r"(experte?|expert)?|(expert(en)?)(agatston|cacs?|calciumscore)",
    "visual_grade": r"visual(cac|grade|score)?|grade|visuell(er|e)?(grad|kalk|score|befund)?"
    r"|kalk(grad|visuell)|(grade|score)visuel",
}
#: Words in names of files, by table; they decide only if the columns do not.
FILE_WORDS: Mapping[str, str] = {
    "clinical": r"patient|clini|klin|baseline|stamm|demogr|kohorte|cohort",
    "perfusion": r"spect|perf|mpi|szinti",
    "encounters": r"fall|dad|case|encounter|aufenthalt|diagn|hosp|sejour|ingreso|opname|stay"
    r"|abstract|admission|kontakt|prozed|proced",
    "deaths": r"death|tod|sterb|mort|deces|vital|overl|dod|defunc",
    "follow_up": r"follow|verzug|wegzug|coverage|nachbeob|suivi|seguim|melde",
    "readings": r"reading|befund|lectur|kalk|calcium",
}
#: Systems of procedure codes by words in the header.
SYSTEM_WORDS: Mapping[str, str] = {
    "OPS": r"^ops|ops(kode|code|schlussel)",
    "OPCS-4": "opcs",
    "CCI": "^cci",
    "CPT": "cpt",
    "NOMESCO": "ncsp|nomesco|kva|atgard",
}


def folded(name: str) -> str:
    """A name in lower case, letters and digits only, without accents; ä, ae and a are the same."""
    lower = name.lower().replace("ß", "ss").replace("æ", "ae").replace("ø", "o").replace("å", "a")
    plain = unicodedata.normalize("NFKD", lower)
    return _single_vowels(re.sub(r"[^a-z0-9]", "", plain))


def name_pattern(column: str) -> re.Pattern[str]:
    """Pattern over folded names of a canonical column; without known names, its own."""
    pattern = NAMES.get(column)
    return re.compile(folded(column) if pattern is None else _single_vowels(pattern))


def _single_vowels(text: str) -> str:
    return re.sub(r"oe", "o", re.sub(r"ae", "a", re.sub(r"ue(?!l)", "u", text)))
