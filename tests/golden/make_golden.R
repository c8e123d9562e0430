# Answers of R to the tables of tests/golden, for the tests of cac_core.stats.
#
# Regenerate, from the root of the repository:
#   python -m tests.builders.cohorts        writes paper.csv and nasty.csv
#   Rscript tests/golden/make_golden.R      writes paper.json and nasty.json
# Packages (Debian: r-cran-<name>): survival, Hmisc, rms, pROC, psych, riskRegression, cmprsk,
# jsonlite. The versions used are in each file under `versions`.
#
# Numbers have 15 significant digits (jsonlite gives no more); NA, NaN and infinities are null. An
# analysis that R refuses is {"error": "<R's words>"}. Row numbers count from 1. Terms are named
# `column` or `column=level`.

suppressPackageStartupMessages({
  library(survival); library(jsonlite)
})
options(warn = -1)
T0 <- 3 * 365.25
CAC <- c("0", "1-100", "101-400", ">400")
TPD <- c("<1", "1-<5", "5-<10", ">=10")
VISUAL <- c("absent", "present", "extensive")
COMPONENTS <- c("death", "mi", "unstable_angina", "revascularisation")
# A tolerance this small keeps the coefficient of a level without events (which runs to minus
# infinity) from being called singular, after which survfit would take it for zero.
CONTROL <- coxph.control(eps = 1e-12, iter.max = 50, toler.chol = 1e-15)
HISTORIES <- c("hypertension", "diabetes", "dyslipidemia", "family_history", "smoking")
BASE <- c("age_10", "male", "bmi_kg_m2", HISTORIES, "stress_tpd_category", "rest_tpd_pct",
          "stress_lvef_pct")
EVERY <- 10  # of per-patient matrices, every tenth row is kept (columns `rows`)

attempt <- function(expr) tryCatch(expr, error = function(e) list(error = conditionMessage(e)))
surv_formula <- function(outcome, terms) {
  as.formula(paste0("Surv(", outcome, "_days, ", outcome, "_event) ~ ", paste(terms, collapse = " + ")))
}
plain_names <- function(x) {
  factors <- "(expert_cac_category|cac_category|stress_tpd_category|visual_level)"
  gsub(paste0("(^|:)", factors), "\\1\\2=", x, perl = TRUE)
}
columns <- function(m) {
  m <- as.matrix(m)
  out <- lapply(seq_len(ncol(m)), function(j) as.numeric(m[, j]))
  names(out) <- plain_names(colnames(m))
  out
}

read_cohort <- function(path) {
  d <- read.csv(path, na.strings = "", colClasses = c(cac_category = "character",
                expert_cac_category = "character"))
  d$cac_category <- factor(d$cac_category, CAC)
  d$expert_cac_category <- factor(d$expert_cac_category, CAC)
  d$visual_level <- factor(ifelse(d$visual_grade == "equivocal", "present", d$visual_grade), VISUAL)
  d$stress_tpd_category <- cut(d$stress_tpd_pct, c(-Inf, 1, 5, 10, Inf), right = FALSE, labels = TPD)
  d$male <- as.numeric(d$sex == "M")
  d$age_10 <- d$age_years / 10
  d$cac_above_100 <- as.numeric(d$agatston > 100)
  d$row <- seq_len(nrow(d))
  d
}

# ---- Kaplan-Meier, log-rank, follow-up, rates -----------------------------------------------

# Steps of the curve (times with an event). std_err is of S; std_err_log of log S (Greenwood).
km_steps <- function(days, event) {
  fits <- lapply(c(log = "log", plain = "plain", loglog = "log-log"), function(type) {
    survfit(Surv(days, event) ~ 1, conf.type = type)
  })
  f <- fits$log
  keep <- f$n.event > 0
  out <- list(n = f$n, n_events = sum(f$n.event), time = f$time[keep], n_risk = f$n.risk[keep],
    n_event = f$n.event[keep], surv = f$surv[keep], std_err = (f$surv * f$std.err)[keep],
    std_err_log = f$std.err[keep])
  for (type in names(fits)) {
    out[[paste0("lower_", type)]] <- fits[[type]]$lower[keep]
    out[[paste0("upper_", type)]] <- fits[[type]]$upper[keep]
  }
  years <- 365.25 * 0:5
  at <- summary(f, times = years, extend = TRUE)
  out$year_days <- years
  out$year_at_risk <- at$n.risk
  out$year_surv <- at$surv
  out
}

km_by <- function(d, column, levels) {
  out <- lapply(levels, function(l) {
    part <- d[!is.na(d[[column]]) & d[[column]] == l, ]
    km_steps(part$mace_days, part$mace_event)
  })
  names(out) <- levels
  out
}

# Mantel-Haenszel log-rank; trend with scores 0, 1, 2, ...: U = s'(O - E), V = s' Var s.
log_rank <- function(d, column, levels) {
  f <- as.formula(paste("Surv(mace_days, mace_event) ~", column))
  d <- d[!is.na(d[[column]]), ]
  s <- survdiff(f, data = d)
  p <- function(x, df) pchisq(x, df, lower.tail = FALSE)
  scores <- seq_along(levels) - 1
  trend <- sum(scores * (s$obs - s$exp))^2 / as.numeric(t(scores) %*% s$var %*% scores)
  pairs <- combn(levels, 2, simplify = FALSE)
  d$score <- as.numeric(d[[column]]) - 1
  numeric_score <- summary(coxph(Surv(mace_days, mace_event) ~ score, data = d, ties = "breslow",
                                 control = CONTROL))$sctest
  list(n = as.numeric(s$n), observed = s$obs, expected = s$exp, variance = s$var,
    chisq = s$chisq, df = length(levels) - 1, p = p(s$chisq, length(levels) - 1),
    trend_chisq = trend, trend_p = p(trend, 1), trend_breslow_score = numeric_score[["test"]],
    pairs = lapply(pairs, function(two) {
      part <- d[d[[column]] %in% two, ]
      part[[column]] <- droplevels(part[[column]])
      s <- survdiff(f, data = part)
      list(first = two[1], second = two[2], chisq = s$chisq, p = p(s$chisq, 1))
    }))
}

# Follow-up: Kaplan-Meier with the indicator turned round, and plain quantiles (type 7) of days.
follow_up <- function(d) {
  f <- quantile(survfit(Surv(mace_days, 1 - mace_event) ~ 1, data = d), c(.25, .5, .75))
  l <- quantile(survfit(Surv(mace_days, 1 - mace_event) ~ 1, data = d, conf.type = "log-log"),
                c(.25, .5, .75))
  list(probs = c(.25, .5, .75), reverse_km = f$quantile, lower_log = f$lower, upper_log = f$upper,
    lower_loglog = l$lower, upper_loglog = l$upper,
    observed = quantile(d$mace_days, c(.25, .5, .75), names = FALSE))
}

# Exact (Garwood) interval of events per 100 person-years; a year has 365.25 days.
rates <- function(d, column, levels) {
  out <- lapply(c("all", levels), function(l) {
    part <- if (l == "all") d else d[!is.na(d[[column]]) & d[[column]] == l, ]
    years <- sum(part$mace_days) / 365.25
    t <- poisson.test(sum(part$mace_event), years)
    list(events = sum(part$mace_event), person_years = years, rate = 100 * t$estimate[[1]],
      lower = 100 * t$conf.int[1], upper = 100 * t$conf.int[2])
  })
  names(out) <- c("all", levels)
  out
}

# ---- Competing risks -------------------------------------------------------------------------

# Aalen-Johansen (survfit, multi-state), at event times; matrices by cause. The standard error is that
# of the infinitesimal jackknife, the limits are those of the logarithm of the incidence.
# `cuminc` of cmprsk at whole years beside it: the same estimate, its variance of another form.
aalen_johansen <- function(days, cause, causes) {
  state <- factor(ifelse(is.na(cause), "censor", cause), c("censor", causes))
  f <- survfit(Surv(days, state) ~ 1)
  keep <- rowSums(f$n.event[, -1, drop = FALSE]) > 0
  pick <- function(m) {
    m <- m[keep, match(causes, f$states), drop = FALSE]
    colnames(m) <- causes
    columns(m)
  }
  years <- 365.25 * 1:5
  ci <- attempt({
    e <- cmprsk::timepoints(cmprsk::cuminc(days, as.character(state), cencode = "censor"), years)
    est <- e$est; var <- e$var
    rownames(est) <- rownames(var) <- sub("^1 ", "", rownames(est))
    list(days = years, est = columns(t(est)), var = columns(t(var)))
  })
  list(n = length(days), time = f$time[keep], n_risk = f$n.risk[keep, 1],
    pstate = pick(f$pstate), std_err = pick(f$std.err), lower = pick(f$lower),
    upper = pick(f$upper), cuminc = ci)
}

competing <- function(d) {
  by <- function(days, cause, causes) {
    out <- lapply(c("all", CAC), function(l) {
      keep <- if (l == "all") rep(TRUE, nrow(d)) else d$cac_category == l
      attempt(aalen_johansen(days[keep], cause[keep], causes))
    })
    names(out) <- c("all", CAC)
    out
  }
  one <- function(component) {
    first <- d[[paste0(component, "_first_days")]]
    days <- ifelse(is.na(first), d$follow_up_days, first)
    cause <- ifelse(!is.na(first), component, ifelse(d$death_event == 1, "death", NA))
    by(days, cause, c(component, "death"))
  }
  list(
    # The first of the four components, each ends the observation of the others.
    first_of_four = by(d$mace_days, d$first_component, COMPONENTS),
    # The first event of one component, with death competing; follow-up to death or its end.
    mi = one("mi"), unstable_angina = one("unstable_angina"),
    revascularisation = one("revascularisation"))
}

# ---- Cox -------------------------------------------------------------------------------------

cox_summary <- function(f) {
  s <- summary(f)
  b <- coef(f)
  list(terms = plain_names(names(b)), n = f$n, n_events = f$nevent, iterations = f$iter,
    coef = as.numeric(b), se = sqrt(diag(vcov(f))), hr = exp(as.numeric(b)),
    lower = as.numeric(exp(b - qnorm(.975) * sqrt(diag(vcov(f))))),
    upper = as.numeric(exp(b + qnorm(.975) * sqrt(diag(vcov(f))))),
    z = as.numeric(s$coefficients[, "z"]), p = as.numeric(s$coefficients[, "Pr(>|z|)"]),
    loglik_null = f$loglik[1], loglik = f$loglik[2],
    lr = s$logtest[["test"]], lr_p = s$logtest[["pvalue"]], wald = f$wald.test,
    score = s$sctest[["test"]], score_p = s$sctest[["pvalue"]], df = s$logtest[["df"]])
}

cox <- function(d, outcome, terms, ties = "efron") {
  coxph(surv_formula(outcome, terms), data = d, ties = ties, control = CONTROL, x = TRUE, y = TRUE,
        model = TRUE)
}

# Cumulative baseline hazard for covariates zero (uncentred) and at the means, at event times.
baseline <- function(f) {
  zero <- survfit(f, newdata = zero_row(f))
  mean_of <- survfit(f)
  centred <- basehaz(f, centered = TRUE)
  keep <- zero$n.event > 0
  list(time = zero$time[keep], cumhaz_zero = zero$cumhaz[keep], cumhaz_mean = mean_of$cumhaz[keep],
    means = as.numeric(f$means))
}
zero_row <- function(f) {
  m <- f$model
  row <- m[1, -1, drop = FALSE]
  for (name in names(row)) {
    row[[name]] <- if (is.factor(m[[name]])) factor(levels(m[[name]])[1], levels(m[[name]])) else 0
  }
  row
}

# Absolute risk at T0 of every patient of the fit.
risk_at <- function(f, days = T0) {
  s <- survfit(f, newdata = f$model, se.fit = FALSE)
  as.numeric(1 - summary(s, times = days, extend = TRUE)$surv)
}

zph <- function(f) {
  out <- list()
  for (terms in c(TRUE, FALSE)) for (transform in c("km", "identity", "rank")) {
    out[[paste0(transform, if (terms) "_terms" else "_coefficients")]] <- attempt({
      t <- cox.zph(f, transform = transform, terms = terms)$table
      list(terms = plain_names(rownames(t)), chisq = t[, "chisq"], df = t[, "df"], p = t[, "p"])
    })
  }
  out
}

# Rows of martingale, deviance, dfbeta, dfbetas and score residuals: every tenth patient of the fit.
# Schoenfeld and scaled Schoenfeld: one row per event, `schoenfeld_days` says when. scaledsch is what
# residuals(type = "scaledsch") gives (coefficients added).
residual_set <- function(f) {
  keep <- seq(1, f$n, by = EVERY)
  named <- function(m) { m <- as.matrix(m); colnames(m) <- names(coef(f)); m }
  of <- function(type) columns(named(residuals(f, type))[keep, , drop = FALSE])
  schoenfeld <- residuals(f, "schoenfeld")
  list(rows = keep, martingale = as.numeric(residuals(f, "martingale"))[keep],
    deviance = as.numeric(residuals(f, "deviance"))[keep],
    dfbeta = of("dfbeta"), dfbetas = of("dfbetas"), score = of("score"),
    dfbetas_max = apply(abs(named(residuals(f, "dfbetas"))), 2, max),
    martingale_sum_of_squares = sum(residuals(f, "martingale")^2),
    schoenfeld_days = as.numeric(rownames(as.matrix(schoenfeld))),
    schoenfeld = columns(named(schoenfeld)), scaledsch = columns(named(residuals(f, "scaledsch"))))
}

concordances <- function(f) {
  one <- function(...) {
    c <- concordance(f, ...)
    list(concordance = c$concordance, var = as.numeric(c$var), counts = as.list(c$count))
  }
  list(harrell = one(), uno_3_years = one(timewt = "n/G2", ymax = T0), uno = one(timewt = "n/G2"),
    harrell_3_years = one(ymax = T0))
}

spline_fit <- function(d, column, transform) {
  x <- transform(d[[column]])
  d <- d[!is.na(x), ]
  x <- x[!is.na(x)]
  basis <- Hmisc::rcspline.eval(x, nk = 4, inclx = TRUE)
  rms_basis <- unclass(rms::rcs(x, 4))
  stopifnot(max(abs(basis - as.matrix(rms_basis)[, seq_len(ncol(basis))])) < 1e-12)
  d <- cbind(d, setNames(as.data.frame(basis), c("s1", "s2", "s3")))
  keep <- seq(1, nrow(d), by = EVERY)
  list(knots = attr(basis, "knots"), rows = d$row[keep],
    basis = columns(d[keep, c("s1", "s2", "s3")]),
    alone = attempt(cox_summary(cox(d, "mace", c("s1", "s2", "s3")))),
    linear = attempt(cox_summary(cox(d, "mace", "s1"))))
}

cox_models <- function(d) {
  full_terms <- c("cac_category", BASE)
  needed <- d[complete.cases(d[, full_terms]), ]
  univariable <- lapply(setNames(nm = c("cac_category", "expert_cac_category", "visual_level", BASE)),
                        function(t) attempt(cox_summary(cox(d, "mace", t))))
  small_terms <- c("cac_above_100", "age_10", "male", "bmi_kg_m2", "smoking", "stress_tpd_pct")
  details <- function(terms, data, ties) attempt({
    f <- cox(data, "mace", terms, ties)
    list(fit = cox_summary(f), baseline = baseline(f), zph = zph(f),
      covariance = unname(vcov(f)),
      residuals = if (ties == "efron") attempt(residual_set(f)) else NULL,
      concordance = if (ties == "efron") concordances(f) else NULL)
  })
  model <- function(terms, outcome = "mace", data = d) attempt(cox_summary(cox(data, outcome, terms)))
  with_source <- function(source) {
    rows <- d[complete.cases(d[, c(source, BASE)]), ]
    list(full = model(c(source, BASE), data = rows), base = model(BASE, data = rows))
  }
  full <- cox(needed, "mace", full_terms)
  interaction <- attempt({
    f <- cox(needed, "mace", c(full_terms, "cac_category:stress_tpd_category"))
    x2 <- 2 * (f$loglik[2] - full$loglik[2])
    df <- sum(!is.na(coef(f))) - length(coef(full))
    list(fit = cox_summary(f), lr = x2, df = df, p = pchisq(x2, df, lower.tail = FALSE))
  })
  linear <- needed
  linear$cac_score <- as.numeric(linear$cac_category) - 1
  linear_interaction <- attempt({
    one <- cox(linear, "mace", c("cac_score", "stress_tpd_pct", "age_10", "male"))
    two <- cox(linear, "mace", c("cac_score", "stress_tpd_pct", "age_10", "male",
                                 "cac_score:stress_tpd_pct"))
    x2 <- 2 * (two$loglik[2] - one$loglik[2])
    list(fit = cox_summary(two), lr = x2, df = 1, p = pchisq(x2, 1, lower.tail = FALSE))
  })
  # Cause-specific: death as the first component; other components censor.
  caused <- needed
  caused$first_death_days <- caused$mace_days
  caused$first_death_event <- as.numeric(!is.na(caused$first_component) &
                                         caused$first_component == "death")
  list(rows = needed$row, univariable = univariable,
    full = details(full_terms, needed, "efron"), full_breslow = details(full_terms, needed, "breslow"),
    base = details(BASE, needed, "efron"),
    small = details(small_terms, d[complete.cases(d[, small_terms]), ], "efron"),
    small_breslow = details(small_terms, d[complete.cases(d[, small_terms]), ], "breslow"),
    risk_3_years = list(full = risk_at(full), base = risk_at(cox(needed, "mace", BASE))),
    expert = with_source("expert_cac_category"), visual = with_source("visual_level"),
    outcomes = lapply(setNames(nm = c("death_mi", "death", "mace_no_early_revascularisation")),
                      function(o) model(full_terms, o, needed)),
    interaction = interaction, linear_interaction = linear_interaction,
    landmark_90 = model(full_terms, "mace", needed[needed$mace_days > 90, ]),
    first_component_death = model(full_terms, "first_death", caused),
    spline_age = attempt(spline_fit(d, "age_years", identity)),
    spline_log_agatston = attempt(spline_fit(d, "agatston", log1p)))
}

# ---- Agreement -------------------------------------------------------------------------------

# Point estimates also by psych::cohen.kappa; standard error of Fleiss, Cohen and Everitt 1969.
kappa_fce <- function(m, weights) {
  n <- sum(m); p <- m / n; r <- rowSums(p); c <- colSums(p)
  po <- sum(weights * p); pe <- sum(weights * outer(r, c)); k <- (po - pe) / (1 - pe)
  wr <- as.vector(weights %*% c); wc <- as.vector(r %*% weights)
  inner <- weights - outer(wr, wc, "+") * (1 - k)
  se <- sqrt((sum(p * inner^2) - (k - pe * (1 - k))^2) / n) / (1 - pe)
  suppressMessages(psych_k <- psych::cohen.kappa(m, w = weights)$weighted.kappa)
  stopifnot(abs(psych_k - k) < 1e-10)
  list(value = k, se = se, lower = k - qnorm(.975) * se, upper = k + qnorm(.975) * se)
}
kappas <- function(a, b, levels) {
  m <- table(factor(a, levels), factor(b, levels))
  m <- matrix(as.numeric(m), nrow(m))
  k <- length(levels); dist <- abs(outer(seq_len(k), seq_len(k), "-")) / (k - 1)
  list(levels = levels, matrix = m, agreement = sum(diag(m)) / sum(m),
    linear = kappa_fce(m, 1 - dist), quadratic = kappa_fce(m, 1 - dist^2),
    unweighted = kappa_fce(m, diag(k)))
}
agreement <- function(d) {
  three <- function(x) factor(c("absent", "present", "present", "extensive")[as.integer(x)], VISUAL)
  present <- function(x) factor(ifelse(x == "0", "no", "yes"), c("no", "yes"))
  both <- !is.na(d$agatston) & !is.na(d$expert_agatston)
  a <- d$agatston[both]; b <- d$expert_agatston[both]
  la <- log1p(a); lb <- log1p(b)
  correlation <- function(x, y) {
    t <- cor.test(x, y)
    list(r = t$estimate[[1]], lower = t$conf.int[1], upper = t$conf.int[2], r2 = t$estimate[[1]]^2)
  }
  s <- cor.test(a, b, method = "spearman", exact = FALSE)
  # Bonett and Wright, Psychometrika 2000;65:23: standard error of atanh(rho).
  rho <- s$estimate[[1]]; half <- qnorm(.975) * sqrt((1 + rho^2 / 2) / (length(a) - 3))
  icc <- psych::ICC(cbind(la, lb), lmer = FALSE)$results["Single_random_raters", ]
  diff <- la - lb
  limits <- mean(diff) + c(-1.96, 1.96) * sd(diff)
  tp <- sum(a >= 1 & b >= 1); pos <- sum(b >= 1); tn <- sum(a < 1 & b < 1); neg <- sum(b < 1)
  wilson <- function(x, n) {
    t <- prop.test(x, n, correct = FALSE)
    list(count = x, n = n, value = x / n, lower = t$conf.int[1], upper = t$conf.int[2])
  }
  list(expert_dl = kappas(d$expert_cac_category, d$cac_category, CAC),
    visual_dl = kappas(d$visual_level, three(d$cac_category), VISUAL),
    visual_expert = kappas(d$visual_level, three(d$expert_cac_category), VISUAL),
    presence_expert_dl = kappas(present(d$expert_cac_category), present(d$cac_category),
                                c("no", "yes")),
    presence_sensitivity = wilson(tp, pos), presence_specificity = wilson(tn, neg),
    n = length(a), raw = correlation(a, b), log1p = correlation(la, lb),
    spearman = list(rho = rho, p = s$p.value, lower = tanh(atanh(rho) - half),
                    upper = tanh(atanh(rho) + half)),
    icc_log = list(value = icc$ICC, lower = icc$`lower bound`, upper = icc$`upper bound`),
    bland_altman_log = list(bias = mean(diff), sd = sd(diff), lower = limits[1], upper = limits[2]))
}

# ---- Description -----------------------------------------------------------------------------

CONTINUOUS <- c("age_years", "bmi_kg_m2", "agatston", "expert_agatston", "stress_tpd_pct",
                "rest_tpd_pct", "stress_lvef_pct")
CATEGORICAL <- c("cac_category", "male", HISTORIES, "stress_tpd_category")

describe_by <- function(d, group) {
  g <- d[[group]]
  two <- nlevels(factor(g)) == 2
  numbers <- lapply(setNames(nm = CONTINUOUS), function(v) attempt({
    x <- d[[v]]; keep <- !is.na(x); x <- x[keep]; gg <- factor(g[keep])
    parts <- split(x, gg)
    out <- list(
      groups = lapply(parts, function(p) {
        w <- attempt(shapiro.test(p))
        list(n = length(p), mean = mean(p), sd = sd(p),
          quartiles_type7 = quantile(p, c(.25, .5, .75), names = FALSE, type = 7),
          quartiles_type2 = quantile(p, c(.25, .5, .75), names = FALSE, type = 2),
          quartiles_type6 = quantile(p, c(.25, .5, .75), names = FALSE, type = 6),
          shapiro_w = if (is.null(w$error)) w$statistic[[1]] else NA,
          shapiro_p = if (is.null(w$error)) w$p.value else NA)
      }),
      missing = sum(!keep))
    a <- summary(aov(x ~ gg))[[1]]
    k <- kruskal.test(x, gg)
    out$anova <- list(f = a$`F value`[1], df = a$Df, p = a$`Pr(>F)`[1])
    out$kruskal <- list(chisq = k$statistic[[1]], df = k$parameter[[1]], p = k$p.value)
    if (two) {
      t <- t.test(parts[[1]], parts[[2]], var.equal = TRUE)
      w <- wilcox.test(parts[[1]], parts[[2]], exact = FALSE, correct = TRUE)
      n <- wilcox.test(parts[[1]], parts[[2]], exact = FALSE, correct = FALSE)
      out$student <- list(t = t$statistic[[1]], df = t$parameter[[1]], p = t$p.value)
      out$wilcoxon <- list(w = w$statistic[[1]], p = w$p.value, p_without_correction = n$p.value)
    }
    out
  }))
  counts <- lapply(setNames(nm = setdiff(CATEGORICAL, group)), function(v) attempt({
    m <- table(factor(d[[v]]), factor(g))
    t <- chisq.test(m, correct = FALSE)
    list(rows = rownames(m), columns = colnames(m), counts = matrix(as.numeric(m), nrow(m)),
      chisq = t$statistic[[1]], df = t$parameter[[1]], p = t$p.value)
  }))
  list(continuous = numbers, categorical = counts)
}

# ---- Discrimination, reclassification, calibration, decisions --------------------------------

# Kaplan-Meier risk at T0 (survival of the last event time carried on).
km_risk <- function(days, event) {
  if (length(days) == 0) return(NA)
  1 - summary(survfit(Surv(days, event) ~ 1), times = T0, extend = TRUE)$surv
}

# G(t) = probability of being uncensored beyond t. Events on a day leave before the censored of that
# day are counted (as prodlim does): factors 1 - c / (n - d). `flipped` is survfit with the indicator
# turned round, factors 1 - c / n. Weights: 1 / G(T-) for events to T0, 1 / G(T0) for those beyond.
censoring <- function(days, event, flipped = FALSE) {
  times <- sort(unique(days[event == 0]))
  factors <- sapply(times, function(t) {
    at_risk <- sum(days >= t) - if (flipped) 0 else sum(days == t & event == 1)
    1 - sum(days == t & event == 0) / at_risk
  })
  surv <- c(1, cumprod(factors))
  function(t, left) surv[findInterval(t, times, left.open = left) + 1]
}

# With cut-offs, moves between classes (a class holds its lower bound); without, any change of risk.
moves <- function(p0, p1, cuts = NULL) {
  if (is.null(cuts)) sign(p1 - p0) else sign(findInterval(p1, cuts) - findInterval(p0, cuts))
}

# Pencina 2011: P(up | event) = (1 - S_up) P(up) / (1 - S), P(up | none) = S_up P(up) / S.
nri_km <- function(days, event, move) {
  risk <- km_risk(days, event)
  share <- function(which) {
    k <- move == which
    if (!any(k)) return(c(0, 0))
    r <- km_risk(days[k], event[k])
    c(r * mean(k) / risk, (1 - r) * mean(k) / (1 - risk))
  }
  up <- share(1); down <- share(-1)
  list(n_up = sum(move == 1), n_down = sum(move == -1), risk = risk,
    p_up_event = up[1], p_down_event = down[1], p_up_nonevent = up[2], p_down_nonevent = down[2],
    nri_event = up[1] - down[1], nri_nonevent = down[2] - up[2],
    nri = up[1] - down[1] + down[2] - up[2])
}

nri_ipw <- function(days, event, move, flipped) {
  g <- censoring(days, event, flipped)
  case <- days <= T0 & event == 1
  w <- ifelse(case, 1 / g(days, TRUE), ifelse(days > T0, 1 / g(T0, FALSE), 0))
  mean_of <- function(k, which) sum(w[k] * (move[k] == which)) / sum(w[k])
  free <- days > T0
  e <- mean_of(case, 1) - mean_of(case, -1); ne <- mean_of(free, -1) - mean_of(free, 1)
  list(p_up_event = mean_of(case, 1), p_down_event = mean_of(case, -1),
    p_up_nonevent = mean_of(free, 1), p_down_nonevent = mean_of(free, -1),
    nri_event = e, nri_nonevent = ne, nri = e + ne)
}

decision_curve <- function(days, event, risk) {
  thresholds <- seq(2, 30, 2) / 100
  nb <- sapply(thresholds, function(pt) {
    k <- risk >= pt
    if (!any(k)) return(0)
    r <- km_risk(days[k], event[k])
    mean(k) * (r - (1 - r) * pt / (1 - pt))
  })
  list(threshold = thresholds, net_benefit = nb)
}

# Groups by tenths of predicted risk (quantiles of type 7; a group holds its lower bound).
calibration <- function(days, event, risk) {
  breaks <- quantile(risk, 0:10 / 10, names = FALSE)
  g <- findInterval(risk, breaks, rightmost.closed = TRUE)
  rows <- lapply(sort(unique(g)), function(i) {
    k <- g == i
    s <- summary(survfit(Surv(days[k], event[k]) ~ 1, conf.type = "log-log"), times = T0,
                 extend = TRUE)
    c(group = i, n = sum(k), predicted = mean(risk[k]), observed = 1 - s$surv,
      lower = 1 - s$upper, upper = 1 - s$lower)
  })
  c(columns(do.call(rbind, rows)), list(breaks = breaks, mean_predicted = mean(risk),
                                        observed_all = km_risk(days, event)))
}

added_value <- function(d, source) {
  d <- d[complete.cases(d[, c(source, BASE)]), ]
  f1 <- cox(d, "mace", c(source, BASE)); f0 <- cox(d, "mace", BASE)
  days <- d$mace_days; event <- d$mace_event
  p1 <- risk_at(f1); p0 <- risk_at(f0)
  lp1 <- predict(f1, type = "lp", reference = "zero"); lp0 <- predict(f0, type = "lp", reference = "zero")
  lr <- 2 * (f1$loglik[2] - f0$loglik[2]); df <- length(coef(f1)) - length(coef(f0))
  auc <- attempt({
    r1 <- pROC::roc(event, lp1, quiet = TRUE, direction = "<")
    r0 <- pROC::roc(event, lp0, quiet = TRUE, direction = "<")
    t <- pROC::roc.test(r1, r0, method = "delong", paired = TRUE)
    one <- function(r) {
      ci <- as.numeric(pROC::ci.auc(r, method = "delong"))
      list(auc = as.numeric(pROC::auc(r)), var = pROC::var(r, method = "delong"),
           lower = ci[1], upper = ci[3])
    }
    list(full = one(r1), base = one(r0), gain = as.numeric(pROC::auc(r1) - pROC::auc(r0)),
      covariance = pROC::cov(r1, r0, method = "delong"), z = t$statistic[[1]], p = t$p.value,
      gain_lower = t$conf.int[1], gain_upper = t$conf.int[2])
  })
  improve <- attempt({
    i <- Hmisc::improveProb(p0, p1, event)
    i[c("n", "na", "nb", "pup.ev", "pup.ne", "pdown.ev", "pdown.ne", "nri", "se.nri", "z.nri",
        "nri.ev", "se.nri.ev", "z.nri.ev", "nri.ne", "se.nri.ne", "z.nri.ne", "improveSens",
        "improveSpec", "idi", "se.idi", "z.idi")]
  })
  score <- attempt({
    s <- riskRegression::Score(list(base = matrix(p0), full = matrix(p1)),
      formula = Surv(mace_days, mace_event) ~ 1, data = d[, c("mace_days", "mace_event")],
      times = T0, metrics = c("auc", "brier"), cens.model = "km", conf.int = TRUE, se.fit = TRUE,
      null.model = TRUE)
    list(auc = as.data.frame(s$AUC$score), auc_contrasts = as.data.frame(s$AUC$contrasts),
      brier = as.data.frame(s$Brier$score), brier_contrasts = as.data.frame(s$Brier$contrasts))
  })
  cuts <- c(0.10, 0.20)
  any_change <- moves(p0, p1); class_change <- moves(p0, p1, cuts)
  list(rows = d$row, risk_base = p0, risk_full = p1, lp_base = as.numeric(lp0),
    lp_full = as.numeric(lp1), lr = lr, lr_df = df, lr_p = pchisq(lr, df, lower.tail = FALSE),
    auc = auc, improve_prob = improve, score = score, cuts = cuts,
    nri_km = nri_km(days, event, any_change), nri_km_categorical = nri_km(days, event, class_change),
    nri_ipw = nri_ipw(days, event, any_change, FALSE),
    nri_ipw_flipped = nri_ipw(days, event, any_change, TRUE),
    nri_ipw_categorical = nri_ipw(days, event, class_change, FALSE),
    harrell_base = concordance(f0)$concordance, harrell_full = concordance(f1)$concordance,
    uno_base = concordance(f0, timewt = "n/G2", ymax = T0)$concordance,
    uno_full = concordance(f1, timewt = "n/G2", ymax = T0)$concordance,
    calibration_base = calibration(days, event, p0), calibration_full = calibration(days, event, p1),
    decision = list(base = decision_curve(days, event, p0), full = decision_curve(days, event, p1),
                    all = decision_curve(days, event, rep(1, length(days)))))
}

# ----------------------------------------------------------------------------------------------

versions <- function() {
  names <- c("survival", "Hmisc", "rms", "pROC", "psych", "riskRegression", "cmprsk", "jsonlite")
  c(list(R = R.version.string),
    lapply(setNames(nm = names), function(n) as.character(packageVersion(n))))
}

answers <- function(d) {
  list(versions = versions(), horizon_days = T0,
    kaplan_meier = list(cac_category = km_by(d, "cac_category", CAC),
                        visual_level = km_by(d, "visual_level", VISUAL)),
    log_rank = list(cac_category = log_rank(d, "cac_category", CAC),
                    expert_cac_category = log_rank(d, "expert_cac_category", CAC),
                    visual_level = log_rank(d, "visual_level", VISUAL)),
    follow_up = follow_up(d), rates = rates(d, "cac_category", CAC),
    competing = competing(d), cox = cox_models(d), agreement = agreement(d),
    description = list(cac_category = describe_by(d, "cac_category"),
                       mace_event = describe_by(d, "mace_event")),
    added_value = list(dl = attempt(added_value(d, "cac_category")),
                       expert = attempt(added_value(d, "expert_cac_category")),
                       visual = attempt(added_value(d, "visual_level"))))
}

folder <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)))
for (name in c("paper", "nasty")) {
  result <- answers(read_cohort(file.path(folder, paste0(name, ".csv"))))
  json <- toJSON(result, digits = I(15), auto_unbox = TRUE, na = "null", null = "null",
                 matrix = "rowmajor")
  writeLines(json, file.path(folder, paste0(name, ".json")))
}
