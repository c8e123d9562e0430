# The Cox models of the analysis plan (Table 2 of the report), fitted in R from the table `linked`.
# Written by `cac export`.
#
#   Rscript analysis.R [linked.parquet or linked.csv] [estimates.csv]
#
# Needs the package survival; arrow only to read Parquet. Writes table_2_r.csv beside the data. With
# the estimates of a report (tables/estimates.csv in its folder), prints how far both are apart and
# ends with status 1 if a number differs by more than 1e-6 of its size. Models use complete cases.

suppressPackageStartupMessages(library(survival))

# ---- the plan ------------------------------------------------------------------------------------
{plan}

# ---- data ----------------------------------------------------------------------------------------

all_terms <- c(lapply(sources, function(term) term), covariates)

#' Table `linked` from Parquet or CSV; columns of categories are texts.
read_linked <- function(path) {
  if (grepl("\\.parquet$", path)) {
    if (!requireNamespace("arrow", quietly = TRUE)) {
      stop("Parquet needs the R package arrow; export with --format csv instead.")
    }
    return(as.data.frame(arrow::read_parquet(path)))
  }
  head <- names(read.csv(path, nrows = 1, check.names = FALSE))
  is_text <- function(term) length(term$levels) > 0 && length(term$cuts) == 0
  texts <- unique(unlist(lapply(Filter(is_text, all_terms), function(term) term$column)))
  classes <- ifelse(head %in% texts, "character", NA)
  read.csv(path, na.strings = "", check.names = FALSE, colClasses = classes)
}

#' Patients who meet all conditions of a population.
members <- function(data, conditions) {
  keep <- rep(TRUE, nrow(data))
  for (one in conditions) {
    x <- data[[one$column]]
    held <- !is.na(x)
    if (!is.null(one$among)) held <- held & x %in% one$among
    if (!is.null(one$equals)) held <- held & x == one$equals
    if (!is.null(one$below)) held <- held & x < one$below
    if (!is.null(one$at_least)) held <- held & x >= one$at_least
    keep <- keep & held
  }
  keep
}

#' Columns of the design of a term: a matrix with a column per level that is not the reference.
columns_of <- function(data, term) {
  x <- data[[term$column]]
  if (term$kind == "numeric") {
    if (!is.null(term$knots)) stop("the plan has a spline, which this script does not repeat")
    return(matrix(x / term$per, dimnames = list(NULL, "")))
  }
  if (term$kind == "binary") {
    value <- x
    if (!is.null(term$positive)) {
      negative <- term$negative
      if (is.null(negative)) negative <- setdiff(unique(x[!is.na(x)]), term$positive)[1]
      value <- ifelse(x == term$positive, 1, ifelse(x == negative, 0, NA))
    }
    return(matrix(as.numeric(value), dimnames = list(NULL, "")))
  }
  if (length(term$cuts) > 0) {
    level <- term$levels[findInterval(x, term$cuts) + 1]
  } else {
    merged <- unlist(term$merge)
    level <- ifelse(x %in% names(merged), merged[x], x)
  }
  others <- setdiff(term$levels, term$reference)
  design <- vapply(others, function(one) as.numeric(level == one), numeric(nrow(data)))
  matrix(design, ncol = length(others), dimnames = list(NULL, others))
}

# ---- models --------------------------------------------------------------------------------------

#' Hazard ratios of a model, one row per column of its design.
cox_rows <- function(data, outcome, terms, labels) {
  days <- data[[paste0(outcome, "_days")]]
  event <- data[[paste0(outcome, "_event")]]
  present <- Filter(function(term) any(!is.na(data[[term$column]])), terms)
  if (length(present) == 0) return(NULL)
  designs <- lapply(present, function(term) columns_of(data, term))
  x <- do.call(cbind, designs)
  names_of <- rep(vapply(present, function(term) term$name, ""), vapply(designs, ncol, 1L))
  used <- complete.cases(x, days, event)
  # A level without events has no finite hazard ratio. In the limit its patients are in no risk set,
  # so the other ratios are those of the remaining patients.
  seen <- colSums(x[used & event == 1, , drop = FALSE] != 0) > 0
  kept <- used & rowSums(x[, !seen, drop = FALSE] != 0) == 0
  fit <- coxph(Surv(days[kept], event[kept]) ~ x[kept, seen, drop = FALSE], ties = "efron",
               control = coxph.control(eps = 1e-11, iter.max = 100))
  estimate <- unname(coef(fit))
  error <- sqrt(diag(vcov(fit)))
  half <- qnorm(1 - (1 - confidence) / 2) * error
  data.frame(labels, outcome = outcome, term = names_of[seen], level = colnames(x)[seen],
             hazard_ratio = exp(estimate), ci_low = exp(estimate - half),
             ci_high = exp(estimate + half), p_value = 2 * pnorm(-abs(estimate / error)),
             n = sum(used), n_events = sum(event[used]), row.names = NULL)
}

#' All models of one outcome in one population.
table_of <- function(data, population, outcome) {
  rows <- function(analysis, model, terms) {
    labels <- data.frame(analysis = analysis, population = population, model = model)
    cox_rows(data, outcome, terms, labels)
  }
  single <- c(lapply(covariates, function(term) rows("cox_univariable", "base", list(term))),
              lapply(names(sources), function(name) {
                rows("cox_univariable", name, sources[name])
              }))
  several <- c(list(rows("cox_multivariable", "base", covariates)),
               lapply(names(sources), function(name) {
                 rows("cox_multivariable", name, c(sources[name], covariates))
               }))
  do.call(rbind, c(single, several))
}

#' Largest difference from the estimates of the report, relative to their size.
compare <- function(table, path) {
  theirs <- read.csv(path, colClasses = c(level = "character", term = "character"))
  theirs <- theirs[theirs$statistic == "hazard_ratio" & !is.na(theirs$value), ]
  theirs$level[is.na(theirs$level)] <- ""
  keys <- c("analysis", "population", "outcome", "model", "term", "level")
  both <- merge(table, theirs, by = keys, suffixes = c("", "_report"))
  pairs <- list(c("hazard_ratio", "value"), c("ci_low", "ci_low_report"),
                c("ci_high", "ci_high_report"))
  apart <- vapply(pairs, function(pair) {
    max(abs(both[[pair[1]]] / both[[pair[2]]] - 1))
  }, 0)
  counts <- all(both$n == both$n_report & both$n_events == both$n_events_report)
  cat(sprintf("%d hazard ratios compared; largest relative difference %.2g; same n and events: %s\n",
              nrow(both), max(apart), counts))
  nrow(both) > 0 && max(apart) <= 1e-6 && counts
}

# ---- run -----------------------------------------------------------------------------------------

arguments <- commandArgs(trailingOnly = TRUE)
script <- sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)[1])
beside <- file.path(dirname(script), c("linked.csv", "linked.parquet"))
path <- if (length(arguments) > 0) arguments[1] else beside[file.exists(beside)][1]
if (is.na(path)) stop("Name the exported table: Rscript analysis.R linked.csv")
linked <- read_linked(path)
tables <- lapply(names(populations), function(population) {
  data <- linked[members(linked, populations[[population]]), ]
  do.call(rbind, lapply(outcomes, function(outcome) table_of(data, population, outcome)))
})
table <- do.call(rbind, tables)
out <- file.path(dirname(path), "table_2_r.csv")
write.csv(table, out, row.names = FALSE, na = "")
cat(sprintf("%d hazard ratios of %d patients in %s\n", nrow(table), nrow(linked), out))
if (length(arguments) > 1 && !compare(table, arguments[2])) quit(status = 1)
