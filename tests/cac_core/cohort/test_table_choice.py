"""Tables and columns of extracts in several languages, by header and content."""

from __future__ import annotations

import pytest

from cac_core.cohort.column_content import Column
from cac_core.cohort.header_words import NAMES, folded, name_pattern
from cac_core.cohort.table_choice import is_header, tables_of

#: Values by canonical column, as extracts have them.
VALUES: dict[str, tuple[str, ...]] = {
    "patient_id": ("10023", "10024", "10077"),
    "study_date": ("01.02.2015", "13.05.2016"),
    "birth_date": ("01.02.1950", "13.05.1946"),
    "age_years": ("63,2", "71"),
    "sex": ("f", "m"),
    "weight_kg": ("80", "92,5"),
    "height_cm": ("170", "181"),
    "diabetes": ("0", "1"),
    "smoking": ("0", "1"),
    "admit_date": ("01.02.2015", "13.05.2016"),
    "discharge_date": ("03.02.2015", "14.05.2016"),
    "diagnosis_code": ("E11.9", "I10", "I20.0", "I21.4"),
    "main_diagnosis": ("E11.9", "I10", "I20.0", "I21.4"),
    "procedure_code": ("5-361.03", "8-837.m0"),
    "procedure_date": ("01.02.2015", "13.05.2016"),
    "death_date": ("01.02.2015", "13.05.2016"),
}
CLINICAL = ("patient_id", "study_date", "birth_date", "sex", "weight_kg", "height_cm", "smoking")
STAYS = ("patient_id", "admit_date", "discharge_date", "main_diagnosis")
HEADERS = (
    ("clinical", CLINICAL, "Patienten-ID;Untersuchungsdatum;Geburtsdatum;Geschlecht;Gewicht (kg);"
     "Größe (cm);Raucher"),
    ("clinical", CLINICAL, "N° patient;Date d'examen;Date de naissance;Sexe;Poids (kg);Taille (cm);"
     "Tabac"),
    ("clinical", CLINICAL, "ID paciente;Fecha de estudio;Fecha de nacimiento;Sexo;Peso (kg);"
     "Talla (cm);Fumador"),
    ("clinical", CLINICAL, "Patiëntnummer;Onderzoeksdatum;Geboortedatum;Geslacht;Gewicht;Lengte;"
     "Roker"),
    ("clinical", CLINICAL, "CPR-nr;Undersøgelsesdato;Fødselsdato;Køn;Vægt (kg);Højde (cm);Ryger"),
    ("clinical", CLINICAL, "Personnummer;Undersökningsdatum;Födelsedatum;Kön;Vikt;Längd;Rökare"),
    ("encounters", STAYS, "Pat-Nr;Aufnahme am;Entlassung am;Hauptdiagnose"),
    ("encounters", STAYS, "Identifiant patient;Date d'entrée;Date de sortie;Diagnostic principal"),
    ("encounters", STAYS, "NHC;Fecha de ingreso;Fecha de alta;Diagnóstico principal"),
    ("encounters", STAYS, "BSN;Opnamedatum;Ontslagdatum;Hoofddiagnose"),
    ("encounters", STAYS, "CPR;Indlæggelsesdato;Udskrivningsdato;Aktionsdiagnose"),
    ("encounters", STAYS, "Løpenr;Innleggelsesdato;Utskrivelsesdato;Hovedtilstand"),
    ("encounters", ("patient_id", "procedure_code", "procedure_date"), "ID;OPS-Kode;OP-Datum"),
    ("deaths", ("patient_id", "death_date"), "Patient;Todesdatum"),
    ("deaths", ("patient_id", "death_date"), "Identifiant patient;Date de décès"),
    ("deaths", ("patient_id", "death_date"), "ID paciente;Fecha de defunción"),
    ("deaths", ("patient_id", "death_date"), "Patiëntnummer;Overlijdensdatum"),
    ("deaths", ("patient_id", "death_date"), "CPR-nr;Dødsdato"),
)  # fmt: skip


@pytest.mark.parametrize(("table", "canonical", "header"), HEADERS)
def test_headers_of_several_languages(table: str, canonical: tuple[str, ...], header: str) -> None:
    names = header.split(";")
    columns = [Column(name, VALUES[c]) for name, c in zip(names, canonical, strict=True)]
    assert is_header(names)
    (fit,) = tables_of("extract", columns)
    assert fit.table.name == table
    assert {c: found[0].name for c, found in fit.columns.items()} == dict(
        zip(canonical, names, strict=True)
    )


def test_the_content_decides_where_the_header_does_not() -> None:
    stays = [Column("ID", VALUES["patient_id"]), Column("Datum", VALUES["admit_date"])]
    coded = [*stays, Column("Merkmal 1", VALUES["diagnosis_code"])]
    (fit,) = tables_of("export", coded)
    assert fit.table.name == "encounters"
    assert fit.columns["diagnosis_code"][0].name == "Merkmal 1"
    assert fit.columns["admit_date"][0].name == "Datum"
    (fit,) = tables_of("todesfaelle", stays)
    assert fit.table.name == "deaths"
    # A column of numbers under a name of a date is not a date.
    (fit,) = tables_of("x", [*coded, Column("Entlassung", ("1", "2", "3"))])
    assert "discharge_date" not in fit.columns


def test_a_file_of_patients_also_holds_their_deaths() -> None:
    names = ("patient_id", "study_date", "sex", "death_date")
    columns = [Column(n, VALUES[n]) for n in names]
    clinical, deaths = tables_of("extract", columns)
    assert (clinical.table.name, deaths.table.name) == ("clinical", "deaths")
    assert deaths.columns["death_date"][0].name == "death_date"


@pytest.mark.parametrize(
    "line", [("10023", "Erika Mustermann", "13.05.1946", "w"), ("Erika", "I21.4"), ()]
)
def test_a_line_of_data_is_no_header(line: tuple[str, ...]) -> None:
    assert not is_header(line)


PRIOR = {
    "prior_mi": "Z.n. Infarkt;Zustand nach Herzinfarkt;Bekannter Infarkt;Prior MI;s/p MI;"
    "Previous myocardial infarction;Infarctus antérieur;ATCD d'infarctus;Infarto previo;"
    "Antecedentes de infarto;IAM previo;Hartinfarct in voorgeschiedenis;Doorgemaakt hartinfarct;"
    "Tidligere hjerteinfarkt;Kendt AMI;Gjennomgått hjerteinfarkt;Tidigare hjärtinfarkt",
    "prior_pci": "Z.n. PCI;Z.n. PTCA/Stent;St. n. PCI;History of PCI;Coronary stent;"
    "Antécédent d'angioplastie coronaire;ICP previa;Eerdere PCI;Dotterbehandeling;"
    "Tidligere ballonudvidelse;Tidigare PCI",
    "prior_cabg": "Z.n. Bypass;Z.n. ACVB-OP;Z.n. CABG;Previous bypass surgery;Pontage antérieur;"
    "Antécédents de pontage aorto-coronarien;Cirugía de bypass previa;Eerdere CABG;Omleidingen;"
    "Tidligere bypassoperation;Tidigare kranskärlsoperation",
}


@pytest.mark.parametrize("canonical", PRIOR)
def test_prior_disease_is_recognised_in_eight_languages(canonical: str) -> None:
    patterns = {name: name_pattern(name) for name in NAMES}
    for header in PRIOR[canonical].split(";"):
        found = [name for name, pattern in patterns.items() if pattern.fullmatch(folded(header))]
        assert found == [canonical], header


@pytest.mark.parametrize("header", ["OP", "Surgery", "Status", "Infarktdatum", "Anamnese", "AM"])
def test_other_names_are_no_prior_disease(header: str) -> None:
    assert not any(name_pattern(name).fullmatch(folded(header)) for name in PRIOR)
