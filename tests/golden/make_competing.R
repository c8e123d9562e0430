# Answers of R to competing risks in the first 900 patients of paper.csv and in nasty.csv.
#
#   Rscript tests/golden/make_competing.R      writes competing.json
#
# Packages (Debian: r-cran-<name>): cmprsk, survival, jsonlite.
#
# Time to the first event of a component, death competing. `gray` is Gray's test by calcium
# category, `crr` the model of Fine and Gray with its robust standard errors.

suppressPackageStartupMessages({
  library(survival); library(cmprsk); library(jsonlite)
})
CAC <- c("0", "1-100", "101-400", ">400")

cohort <- function(path, rows) {
  d <- read.csv(path, na.strings = "", colClasses = c(cac_category = "character"))
  d <- d[seq_len(min(rows, nrow(d))), ]
  d$level <- match(d$cac_category, CAC)
  d
}

answers <- function(d, component) {
  first <- d[[paste0(component, "_first_days")]]
  death <- d$death_first_days
  end <- d$follow_up_days
  mine <- ifelse(is.na(first), Inf, first); other <- ifelse(is.na(death), Inf, death)
  cause <- ifelse(mine <= pmin(other, end), 1, ifelse(other <= end, 2, 0))
  days <- pmin(mine, other, end)
  k <- !is.na(d$level) & !is.na(d$age_years) & !is.na(d$sex)
  gray <- cuminc(days[!is.na(d$level)], cause[!is.na(d$level)], d$level[!is.na(d$level)])$Tests
  x <- cbind(low = d$level == 2, middle = d$level == 3, high = d$level == 4,
             age = d$age_years / 10, male = d$sex == "M")[k, ] + 0
  keep <- apply(x, 2, function(one) sum(one[cause[k] == 1] != 0) > 0)
  f <- crr(days[k], cause[k], x[, keep], gtol = 1e-12, maxiter = 50)
  list(n = sum(k), n_events = sum(cause[k] == 1), n_competing = sum(cause[k] == 2),
       gray = list(chi2 = gray[1, "stat"], df = gray[1, "df"], p = gray[1, "pv"]),
       crr = list(names = colnames(x)[keep], coef = unname(f$coef),
                  se = sqrt(diag(f$var)), loglik = f$loglik, loglik_null = f$loglik.null))
}

folder <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)))
paper <- cohort(file.path(folder, "paper.csv"), 900)
nasty <- cohort(file.path(folder, "nasty.csv"), 300)
result <- list(
  versions = list(R = R.version.string, cmprsk = as.character(packageVersion("cmprsk"))),
  paper = list(mi = answers(paper, "mi"), revascularisation = answers(paper, "revascularisation")),
  nasty = list(revascularisation = answers(nasty, "revascularisation")))
writeLines(toJSON(result, digits = I(15), auto_unbox = TRUE, na = "null", pretty = 1),
           file.path(folder, "competing.json"))
