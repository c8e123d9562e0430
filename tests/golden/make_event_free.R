# Answers of R to the first 900 patients of paper.csv in whom whole levels have no event.
#
#   Rscript tests/golden/make_event_free.R      writes event_free.json
#
# Packages (Debian: r-cran-<name>): survival, jsonlite.
#
# `reference`: nobody with a calcium category of 0, the reference, has MACE. `both`: nor has anybody
# with a stress TPD below 1 %, the reference of another term. `level`: nobody with 1-100 has. The
# coefficients of such levels run to infinity; the likelihood, the order of risks and the degrees of
# freedom do not. Risks are equal where they differ by no more than 1e-8.

suppressPackageStartupMessages({
  library(survival); library(jsonlite)
})
options(warn = -1)
T0 <- 3 * 365.25
TIE <- 1e-8
CONTROL <- coxph.control(eps = 1e-12, iter.max = 50, toler.chol = 1e-15)
BASE <- c("age_10", "male", "bmi_kg_m2", "diabetes", "stress_tpd_category")

cohort <- function(path, without) {
  d <- read.csv(path, na.strings = "", colClasses = c(cac_category = "character"))[1:900, ]
  d$cac_category <- factor(d$cac_category, c("0", "1-100", "101-400", ">400"))
  d$stress_tpd_category <- cut(d$stress_tpd_pct, c(-Inf, 1, 5, 10, Inf), right = FALSE)
  d$male <- as.numeric(d$sex == "M")
  d$age_10 <- d$age_years / 10
  for (name in names(without)) d$mace_event[as.integer(d[[name]]) == without[[name]]] <- 0
  d
}

fitted <- function(d, terms, control = CONTROL) {
  text <- paste("Surv(mace_days, mace_event) ~", paste(terms, collapse = " + "))
  coxph(as.formula(text), data = d, control = control, x = TRUE, y = TRUE, model = TRUE)
}

test <- function(smaller, larger) {
  x2 <- 2 * (larger$loglik[length(larger$loglik)] - smaller$loglik[length(smaller$loglik)])
  df <- length(coef(larger)) - length(coef(smaller))
  list(chi2 = x2, df = df, p = pchisq(x2, df, lower.tail = FALSE))
}

risk_at <- function(fit, d) {
  base <- survfit(fit, newdata = d[1, ])
  at <- max(which(base$time <= T0))
  eta <- predict(fit, type = "lp", reference = "sample")
  risk <- 1 - exp(-base$cumhaz[at] * exp(eta - eta[1]))
  ifelse(risk < 1e-9, 0, risk)
}

km_risk <- function(days, event) {
  if (!length(days)) return(0)
  1 - summary(survfit(Surv(days, event) ~ 1), times = T0, extend = TRUE)$surv
}

nri <- function(d, p0, p1) {
  move <- ifelse(abs(p1 - p0) <= TIE, 0, sign(p1 - p0))
  risk <- km_risk(d$mace_days, d$mace_event)
  share <- function(k) {
    r <- km_risk(d$mace_days[k], d$mace_event[k])
    c(r * mean(k) / risk, (1 - r) * mean(k) / (1 - risk))
  }
  up <- share(move == 1); down <- share(move == -1)
  list(n_up = sum(move == 1), n_down = sum(move == -1), event = up[1] - down[1],
       nonevent = down[2] - up[2])
}

# The test inverts the information, which is singular nearer to the limit.
zph <- function(fit) {
  z <- cox.zph(fit)$table
  list(terms = rownames(z), chisq = unname(z[, "chisq"]), df = unname(z[, "df"]),
       p = unname(z[, "p"]))
}

answers <- function(path, without) {
  d <- cohort(path, without)
  null <- fitted(d, "1"); base <- fitted(d, BASE); full <- fitted(d, c("cac_category", BASE))
  alone <- fitted(d, "cac_category")
  list(n_events = sum(d$mace_event), whole = test(null, full), term = test(base, full),
       univariable = test(null, alone),
       concordance = concordance(full)$concordance, concordance_base = concordance(base)$concordance,
       concordance_alone = concordance(alone)$concordance,
       
       zph = zph(fitted(d, c("cac_category", BASE), coxph.control())), nri = nri(d, risk_at(base, d), risk_at(full, d)))
}

folder <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)))
path <- file.path(folder, "paper.csv")
result <- list(
  versions = list(R = R.version.string, survival = as.character(packageVersion("survival"))),
  reference = answers(path, list(cac_category = 1)),
  both = answers(path, list(cac_category = 1, stress_tpd_category = 1)),
  level = answers(path, list(cac_category = 2)))
writeLines(toJSON(result, digits = I(15), auto_unbox = TRUE, na = "null", pretty = 1),
           file.path(folder, "event_free.json"))
