# Reference values of discrimination and calibration, from R 4.2.2 with pROC 1.18.0, survival 3.5-3,
# riskRegression 2022.11.28, prodlim 2019.11.13 and jsonlite 1.8.4. In the root of the repository:
#   PYTHONPATH=. python tests/builders/followed.py && Rscript tests/golden/make_discrimination.R
suppressMessages({
  library(survival)
  library(pROC)
  library(riskRegression)
})

horizon <- 700
folder <- "tests/golden"
# Just before and at times that the tied cohort holds.
g_at <- c(349.9, 350, 699.9, 700)
data <- read.csv(file.path(folder, "discrimination.csv"))

# Kaplan-Meier at the horizon: risk with log-log interval.
observed <- function(d) {
  s <- summary(survfit(Surv(time, event) ~ 1, d, conf.type = "log-log"), times = horizon)
  list(risk = 1 - s$surv, low = 1 - s$upper, high = 1 - s$lower, n = nrow(d))
}

net_benefit <- function(d, p) {
  flagged <- d[d$risk >= p, ]
  share <- nrow(flagged) / nrow(d)
  risk <- observed(flagged)$risk
  share * risk - share * (1 - risk) * p / (1 - p)
}

reference <- function(d) {
  first <- roc(d$event, d$risk, levels = c(0, 1), direction = "<")
  second <- roc(d$event, d$second, levels = c(0, 1), direction = "<")
  ci <- ci.auc(first, method = "delong")
  test <- roc.test(first, second, method = "delong", paired = TRUE)
  harrell <- concordance(Surv(time, event) ~ risk, d, reverse = TRUE)
  uno <- concordance(Surv(time, event) ~ risk, d, reverse = TRUE, timewt = "n/G2", ymax = horizon)
  score <- Score(
    list(first = d$risk), formula = Surv(time, event) ~ 1, data = d, times = horizon,
    metrics = c("auc", "brier"), null.model = TRUE, conf.int = TRUE
  )
  brier <- score$Brier$score
  g <- prodlim::prodlim(prodlim::Hist(time, event) ~ 1, data = d, reverse = TRUE)
  cuts <- quantile(d$risk, seq_len(4) / 5)
  group <- findInterval(d$risk, unique(cuts), left.open = TRUE)
  d$group <- group
  list(
    auc = as.numeric(auc(first)), auc_low = ci[1], auc_high = ci[3],
    second_auc = as.numeric(auc(second)), variance = var(first), second_variance = var(second),
    covariance = cov(first, second), p_difference = test$p.value,
    difference_low = test$conf.int[1], difference_high = test$conf.int[2],
    harrell = harrell$concordance, harrell_variance = harrell$var,
    uno = uno$concordance, uno_variance = uno$var,
    auc_at = score$AUC$score$AUC, auc_at_error = score$AUC$score$se,
    brier = brier$Brier[brier$model == "first"], brier_error = brier$se[brier$model == "first"],
    brier_reference = brier$Brier[brier$model == "Null model"],
    g_at = g_at, g = as.numeric(predict(g, times = g_at)),
    groups = lapply(split(d, d$group), function(x) c(observed(x), predicted = mean(x$risk))),
    thresholds = c(0.1, 0.3, 0.5), net_benefit = sapply(c(0.1, 0.3, 0.5), net_benefit, d = d),
    everyone = observed(d), mean_risk = mean(d$risk)
  )
}

cohorts <- lapply(split(data, data$cohort), reference)
text <- jsonlite::toJSON(cohorts, digits = NA, auto_unbox = TRUE, pretty = TRUE)
writeLines(text, file.path(folder, "discrimination.json"))
