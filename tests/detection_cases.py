"""What the tests of detection share."""


def held(spark, settings, name, condition="TRUE"):
    return spark.table(settings.table(name)).where(condition).toArrow().to_pylist()
